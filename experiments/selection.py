"""The checkpoint of the result, chosen by validation tasks: never by test tasks."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from experiments import hosts, workdir
from experiments.experiment import Experiment
from warpjax import checkpoints, evaluation, parallel
from warpjax.training import TrainState

BEST = "best"
# Validation tasks come from a stream of their own, which neither training nor test tasks meet.
_VAL_STREAM = 0x7A11

Judge = Callable[[int, TrainState], None]
"""`(meta-step, state) -> None`: measures the state on validation tasks, and keeps it where it is the best so far."""


@contextlib.contextmanager
def judge(experiment: Experiment, directory: pathlib.Path, first: int) -> Iterator[Judge]:
  """Opens the best checkpoint of a workdir, whose rows of validation are those up to meta-step `first`.

  Args:
    experiment: What is trained.
    directory: Its workdir.
    first: Where training starts; what was kept of later steps is removed, since they come again.

  Yields:
    A `Judge`, which does nothing for an experiment without validation tasks.
  """
  if not experiment.evaluation.val_tasks:
    yield lambda step, state: None
    return
  measure = _measure(experiment)
  with checkpoints.open_manager(directory / BEST, max_to_keep=2) as manager:
    for step in checkpoints.steps(manager):
      if step > first:
        manager.delete(step)

    def consider(step: int, state: TrainState) -> None:
      metric = experiment.spec.metric
      earlier = hosts.from_first(lambda: [row[metric] for row in rows(directory) if row["step"] < step])
      found = measure(parallel.on_this_host(state))
      if hosts.is_first():
        workdir.append_metrics(directory, [{"step": step, "split": "val", **found}])
      if not earlier or _better(metric, found[metric], max(earlier, key=lambda value: _rank(metric, value))):
        checkpoints.save(manager, step, state, found)

    yield consider


def rows(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The validation rows of `metrics.jsonl`."""
  return [row for row in workdir.read_metrics(directory) if row.get("split") == "val"]


def best(experiment: Experiment, directory: pathlib.Path, template: TrainState) -> tuple[TrainState, dict[str, Any]]:
  """The state with the best validation, and what was measured of it: `step`, the metric, `ci95`, `num_tasks`.

  Raises:
    ValueError: Where there is none.
  """
  mesh = parallel.device_mesh(jax.process_count())
  with checkpoints.open_manager(directory / BEST, max_to_keep=2) as manager:
    restored = checkpoints.restore_latest(manager, parallel.on_every_host(template, mesh))
  if restored is None:
    raise ValueError(f"{directory} holds no checkpoint chosen by validation; train first.")
  return parallel.on_this_host(restored.state), {"by": "validation", "step": restored.step, **restored.extra}


def _measure(experiment: Experiment) -> Callable[[TrainState], dict[str, Any]]:
  settings, data = experiment.evaluation, experiment.data
  val = data.val
  assert val is not None  # `build` refuses validation without it
  key = jax.random.fold_in(jax.random.key(settings.seed), _VAL_STREAM)
  compiled: list[Any] = []

  def measure(state: TrainState) -> dict[str, Any]:
    readout = experiment.readout_of(state.meta_params)
    inner, meta_params = experiment.test_loop(state)
    if not compiled:
      compiled.append(
        evaluation.evaluator(
          inner,
          num_steps=settings.num_steps,
          metric=experiment.spec.metric,
          readout=readout,
          task_chunk=experiment.run.task_chunk or None,
        )
      )
    # Readouts of one experiment differ in their data alone.
    found = compiled[0](meta_params, val, key, settings.val_tasks, readout.data).summary()
    return {experiment.spec.metric: found["mean"], **{name: found[name] for name in ("ci95", "num_tasks")}}

  return measure


def _rank(metric: str, value: float) -> float:
  """Higher is better; what is not a number is worst."""
  value = value if value == value else float("-inf") if metric == "accuracy" else float("inf")
  return value if metric == "accuracy" else -value


def _better(metric: str, value: float, other: float) -> bool:
  return _rank(metric, value) > _rank(metric, other)
