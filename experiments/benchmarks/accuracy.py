"""How far each estimator is from the exact meta-gradient, against the gradients and Hessian-vector products it took."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import count
from experiments.benchmarks.cases import Case
from experiments.benchmarks.estimators import Estimator, for_one_task
from warpjax import compilation
from warpjax.types import MetaParams

Row = dict[str, Any]


def compare(
  case: Case,
  estimators: Mapping[str, Estimator],
  *,
  num_steps: Sequence[int] = (1, 4, 16, 64),
  say: Callable[[str], None] = print,
) -> list[Row]:
  """Each estimator at each number of inner steps, against the exact meta-gradient.

  A notebook's own estimator is one line: `compare(case, {"mine": lambda inner: my_estimator(inner), **others})`.

  Args:
    case: The problem.
    estimators: `name -> (inner) -> MetaGradFn`, or a `CarriedMetaGrad`, whose state starts afresh.
    num_steps: Inner steps.
    say: Hears of an estimator that refuses the problem, which is left out.

  Returns:
    A row for each estimator, number of steps and block that it estimates: `cosine`, `norm_ratio` (the estimate's over
    the exact) and `relative_error`, means over the tasks; `gradients` and `hvps`, evaluated for one task.

  Example:
    >>> from experiments.benchmarks import cases
    >>> from warpjax.meta_gradients import unrolled
    >>> case = cases.quadratic_family(num_tasks=2, dim=3)
    >>> row, = compare(case, {"mine": lambda inner: unrolled(inner)}, num_steps=(2,))
    >>> row["block"], row["gradients"], row["hvps"], row["relative_error"] < 1e-10
    ('initial', 5.0, 2.0, True)
  """
  rows: list[Row] = []
  for steps in num_steps:
    exact = jax.tree.map(np.asarray, case.exact(steps))
    for name, make in estimators.items():
      try:
        found, counts = _estimate(case, make, steps)
      except ValueError as error:
        say(f"{case.name}: {name} with {steps} inner steps is left out: {error}")
        continue
      for block, errors in _errors(found, exact):
        rows.append({"case": case.name, "method": name, "inner_steps": steps, "block": block, **counts, **errors})
  return rows


def _estimate(case: Case, make: Estimator, num_steps: int) -> tuple[MetaParams, dict[str, float]]:
  counter: count.Counter = collections.Counter()
  loss_fn = count.counted(case.inner.loss_fn, counter)
  with jax.enable_x64(case.dtype == "float64"):
    estimate = for_one_task(make(case.inner._replace(num_steps=num_steps, loss_fn=loss_fn)))
    # The programs are tiny and many, so that compiling them is most of the work.
    run = lambda tasks, keys: jax.vmap(lambda t, k: estimate(case.meta_params, t, k)[1])(tasks, keys)
    found = jax.block_until_ready(jax.jit(run, compiler_options=compilation.fast_compilation())(case.tasks, case.keys))
  num_tasks = len(case.keys)
  return found, {name: total / num_tasks for name, total in count.totals(counter).items()}


def _errors(found: MetaParams, exact: MetaParams) -> Iterator[tuple[str, dict[str, float]]]:
  """Of each block that has parameters and an estimate."""
  for block, estimate, answer in zip(MetaParams._fields, found, exact, strict=True):
    if not jax.tree.leaves(estimate):
      continue
    x, y = _matrix(estimate), _matrix(answer)
    sizes, norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    if not np.any(sizes):  # a block that this estimator says nothing about
      continue
    yield (
      block,
      {
        "cosine": float(np.mean(np.sum(x * y, axis=1) / (sizes * norms))),
        "norm_ratio": float(np.mean(sizes / norms)),
        "relative_error": float(np.mean(np.linalg.norm(x - y, axis=1) / norms)),
      },
    )


def _matrix(tree: Any) -> np.ndarray:
  """`[num_tasks, size]` in double precision."""
  return np.concatenate([np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)], axis=1)
