"""How many inner steps fit into memory, and which memory policies take a number of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from warpjax import meta_gradients, training
from warpjax.diagnostics import cost
from warpjax.differentiation import Derivative, Memory
from warpjax.runner import loop
from warpjax.runner.components import outer_step
from warpjax.runner.config import recipes, registry
from warpjax.runner.experiment import Experiment
from warpjax.types import InnerLoop

# For each way to differentiate, the faster policies first.
POLICIES: tuple[tuple[Derivative, Memory], ...] = (
  ("mixed", "save_all"),
  ("mixed", "save_gradients"),
  ("mixed", "recompute"),
  ("mixed", "nested"),
  ("mixed", "offload"),
  ("mixed", "treeverse"),
  ("reverse", "save_all"),
  ("reverse", "recompute"),
  ("reverse", "nested"),
  ("reverse", "treeverse"),
  ("first_order", "save_all"),
  ("first_order", "recompute"),
  ("first_order", "nested"),
)


def table(config: Mapping[str, Any], experiment: Experiment, gib: float, at_most: int = 4096) -> dict[str, int]:
  """The largest number of inner steps of a meta-step on one device, by name of the policy.

  Args:
    config: The config, nested dicts.
    experiment: The built config, with its tasks, chunks and optimizer.
    gib: The budget in 2^30 bytes: arguments, results and temporaries.
    at_most: Upper limit of the search.

  Returns:
    `{"unrolled, mixed, recompute": 123, ...}`, `at_most` if more would fit; the last entry is the config's own.
  """
  steps = {name: _largest(experiment, make, gib, at_most) for name, make in _estimators(experiment).items()}
  tables = {"meta_gradient": recipes.without_none(config)["meta_gradient"]}
  unit = tables["meta_gradient"].get("length") or tables["meta_gradient"].get("window") or 1
  make = partial(registry.meta_gradient, tables, apply=experiment.network.apply)
  own = _largest(experiment, make, gib, at_most, unit)
  return {**steps, f"{experiment.run.method}, as configured": own}


def predicted(experiment: Experiment, num_steps: int) -> dict[str, float]:
  """The GiB of a meta-step of so many inner steps, by name of the policy, from programs of at most 64 steps."""

  def gib(make: partial) -> float:
    of = lambda count, snapshots: _peak(experiment, partial(make, snapshots=snapshots), count)
    return cost.growth(of, make.keywords["memory"]).bytes_of(num_steps) / 2**30

  return {name: gib(make) for name, make in _estimators(experiment).items()}


def _estimators(experiment: Experiment) -> dict[str, partial]:
  make = partial(partial, _unrolled)
  chosen = POLICIES if experiment.inner.rule.differentiable else ()
  return {f"unrolled, {how}, {memory}": make(derivative=how, memory=memory) for how, memory in chosen}


def _unrolled(inner: InnerLoop, **policy: Any) -> Any:
  """Unrolled, for any rule: Adam's missing derivative at zero does not matter in a program that is not run."""
  return meta_gradients.unrolled(inner._replace(rule=inner.rule._replace(finite_at_zero=True)), **policy)


def _largest(experiment: Experiment, make: Callable[[InnerLoop], Any], gib: float, at_most: int, unit: int = 1) -> int:
  """The largest multiple of `unit`, the inner steps of one outer update if an adaptation has several."""
  peak = lambda count: _peak(experiment, make, count * unit)
  return unit * cost.largest_num_steps(peak, gib * 2**30, at_most=max(at_most // unit, 1))


def _peak(experiment: Experiment, make: Callable[[InnerLoop], Any], num_steps: int) -> int:
  run, data = experiment.run, experiment.data
  example = jax.eval_shape(data.train, jax.random.key(0))
  outer = outer_step.resolve(make(experiment.inner._replace(num_steps=num_steps)), example)
  step = outer.make_step(experiment.optimizer, task_chunk=run.task_chunk or None)
  state = jax.eval_shape(lambda: loop.start(experiment._replace(outer_step=outer)))
  tasks = jax.eval_shape(lambda key: training.sample_tasks(data.train, key, run.tasks_per_step), jax.random.key(0))
  return cost.compiled_cost(step, state, tasks).peak_bytes
