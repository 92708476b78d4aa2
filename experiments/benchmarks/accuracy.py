"""How far each estimator is from the exact meta-gradient, against the gradients and Hessian-vector products it took."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import cases, count
from experiments.benchmarks.cases import Case
from experiments.benchmarks.estimators import Estimator, chosen, for_one_task, from_tables
from warpjax import compilation
from warpjax.runner.config import schema
from warpjax.types import MetaParams, PyTree

Row = dict[str, Any]


def rows(problems: dict, estimators: dict, inner_steps: Sequence[int], only: Sequence[str] = ()) -> Iterator[Row]:
  """The rows of every problem of a config."""
  for name, table in problems.items():
    case = schema.call(f"config.problems.{name}", table, schema.choose("config.problems", name, cases.CASES))
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), case.tasks)
    yield from compare(case, from_tables(chosen(estimators, only), example), num_steps=inner_steps)


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
    say: Called with a message for each estimator skipped, which is one that refuses the problem.

  Returns:
    A row for each estimator, number of steps and block that it estimates: `cosine`, `norm_ratio` (the estimate's over
    the exact) and `relative_error`, means over the tasks; `gradients` and `hvps`, evaluated for one task.
  """
  compared: list[Row] = []
  for steps in num_steps:
    exact = jax.tree.map(np.asarray, case.exact(steps))
    for name, make in estimators.items():
      try:
        estimate, counts = _estimate(case, make, steps)
      except ValueError as error:
        say(f"{case.name}: {name} with {steps} inner steps is left out: {error}")
        continue
      for block, errors in _errors(estimate, exact):
        compared.append({"case": case.name, "method": name, "inner_steps": steps, "block": block, **counts, **errors})
  return compared


def _estimate(case: Case, make: Estimator, num_steps: int) -> tuple[MetaParams, dict[str, float]]:
  counter: count.Counter = collections.Counter()
  loss_fn = count.counted(case.inner.loss_fn, counter)
  with jax.enable_x64(case.dtype == "float64"):
    meta_grad = for_one_task(make(case.inner._replace(num_steps=num_steps, loss_fn=loss_fn)))
    # The programs are tiny and many, so that compiling them is most of the work.
    run = jax.jit(
      jax.vmap(lambda task, key: meta_grad(case.meta_params, task, key)[1]),
      compiler_options=compilation.fast_compilation(),
    )
    estimate = jax.block_until_ready(run(case.tasks, case.keys))
  return estimate, {name: total / len(case.keys) for name, total in count.totals(counter).items()}


def _errors(estimates: MetaParams, exact: MetaParams) -> Iterator[tuple[str, dict[str, float]]]:
  """The errors of each block that has parameters and an estimate."""
  for block, estimate, answer in zip(MetaParams._fields, estimates, exact, strict=True):
    if not jax.tree.leaves(estimate):
      continue
    x, y = _matrix(estimate), _matrix(answer)
    sizes, norms = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
    if not np.any(sizes):  # a block that this estimator does not estimate
      continue
    cosines, differences = np.sum(x * y, axis=1) / (sizes * norms), np.linalg.norm(x - y, axis=1)
    values = {"cosine": cosines, "norm_ratio": sizes / norms, "relative_error": differences / norms}
    yield block, {name: float(np.mean(value)) for name, value in values.items()}


def _matrix(tree: PyTree) -> np.ndarray:
  """`[num_tasks, size]` in double precision."""
  return np.concatenate([np.asarray(leaf, np.float64).reshape(len(leaf), -1) for leaf in jax.tree.leaves(tree)], axis=1)
