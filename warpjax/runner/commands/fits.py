"""The largest number of inner steps that fits into memory, for each way to differentiate and each memory policy.

  warpjax fits --config=configs/omniglot.py:maml --gib=4 --config.tasks_per_step=32

Programs are compiled and not run, so that the budget may exceed the memory of this machine. The memory of unrolled
meta-gradients grows with the steps. The last row is the config's own estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from absl import flags

from warpjax import meta_gradients, training
from warpjax.diagnostics import cost
from warpjax.differentiation import Derivative, Memory
from warpjax.runner import cli, loop
from warpjax.runner.cli import FLAGS
from warpjax.runner.components import outer_step
from warpjax.runner.config import recipes, registry
from warpjax.runner.experiment import Experiment, build
from warpjax.runner.reporting import progress
from warpjax.types import InnerLoop

POLICIES: tuple[tuple[Derivative, Memory], ...] = (
  ("mixed", "recompute"),
  ("mixed", "save_gradients"),
  ("mixed", "save_all"),
  ("reverse", "recompute"),
  ("reverse", "save_all"),
  ("first_order", "recompute"),
  ("first_order", "save_all"),
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
  estimators: dict[str, Callable[[InnerLoop], Any]] = {}
  if experiment.inner.rule.differentiable:
    for derivative, memory in POLICIES:
      estimators[f"unrolled, {derivative}, {memory}"] = partial(_unrolled, derivative=derivative, memory=memory)
  steps = {name: _largest(experiment, make, gib, at_most) for name, make in estimators.items()}
  tables = {"meta_gradient": recipes.without_none(config)["meta_gradient"]}
  unit = tables["meta_gradient"].get("length") or tables["meta_gradient"].get("window") or 1
  own = _largest(
    experiment, partial(registry.meta_gradient, tables, apply=experiment.network.apply), gib, at_most, unit
  )
  return {**steps, f"{experiment.run.method}, as configured": own}


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


def main() -> None:
  """Runs the command."""
  cli.keep_compiled()
  config = cli.config()
  experiment = build(config, **cli.places())
  with progress.waiting(f"Compiling programs of {experiment.run.name} with different numbers of inner steps"):
    fitting = table(config, experiment, FLAGS.gib, FLAGS.at_most)
  print(f"largest number of inner steps within {FLAGS.gib:g} GiB, at most {FLAGS.at_most}:")
  for name, steps in fitting.items():
    print(f"  {name:<36} {steps}")


def command() -> None:
  """Defines the flags and runs."""
  cli.define(config=True)
  flags.DEFINE_float("gib", None, "Memory of one device, in 2^30 bytes.", required=True, lower_bound=1e-6)
  flags.DEFINE_integer("at_most", 4096, "Largest number of inner steps to try.", lower_bound=1)
  cli.run(main)
