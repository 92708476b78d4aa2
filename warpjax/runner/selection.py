"""Selects the checkpoint of the result, or those of an ensemble, by validation tasks; test tasks never select."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from warpjax.runner import measure, workdir
from warpjax.runner.experiment import Experiment
from warpjax.runner.machine import hosts
from warpjax.runner.reporting.writers import Writer
from warpjax.training import TrainState, checkpoints, parallel

BEST = "best"
_SPARE = 1  # checkpoints kept besides the best, in case one is damaged
# Validation tasks have a random stream of their own, apart from those of training and test tasks.
_VAL_STREAM = 0x7A11

Validate = Callable[[int, TrainState], None]
"""`(meta-step, state) -> None`: measures the state on validation tasks, and keeps it if it is among the best so far."""


@contextlib.contextmanager
def validation(experiment: Experiment, directory: pathlib.Path, first: int, write: Writer) -> Iterator[Validate]:
  """Opens the best checkpoints of a workdir, which are those up to meta-step `first`.

  Args:
    experiment: The experiment that is trained.
    directory: Its workdir.
    first: The meta-step at which training starts; later checkpoints are removed, since training repeats them.
    write: Receives the rows of validation.

  Yields:
    A `Validate`, which does nothing for an experiment without validation tasks.
  """
  if not experiment.evaluation.val_tasks:
    yield lambda step, state: None
    return
  measured, metric, wanted = _measured(experiment), experiment.spec.metric, _wanted(experiment)
  with contextlib.ExitStack() as stack:
    manager = functools.cache(lambda: stack.enter_context(_open(experiment, directory)))  # see `loop.train`
    for step in hosts.from_first(lambda: checkpoints.steps(directory / BEST)):
      if step > first:
        checkpoints.delete(manager(), step)

    def consider(step: int, state: TrainState) -> None:
      values = measured(parallel.on_this_host(state))
      if hosts.is_first():
        write({"step": step, "split": "val", **values})
      ranks = _ranks(experiment, directory)
      rank = _rank(metric, values[metric])
      if sum(each >= rank for earlier, each in ranks.items() if earlier < step) < wanted:
        checkpoints.save(manager(), step, state, values)
        for worse in _ranked(ranks, manager())[wanted + _SPARE :]:
          checkpoints.delete(manager(), worse)

    yield consider


def rows(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The validation rows of `metrics.jsonl`."""
  return [row for row in workdir.read_metrics(directory) if row.get("split") == "val"]


def best(
  experiment: Experiment, directory: pathlib.Path, template: TrainState
) -> tuple[list[TrainState], dict[str, Any]]:
  """The states with the best validation, and the validation of the first; a single state without an ensemble.

  Returns:
    The states, best first, and `step`, the metric, `ci95`, `num_tasks`; with an ensemble also its `steps`.

  Raises:
    BusyError: If a run replaced a checkpoint while it was read.
    ValueError: If there is no checkpoint.
  """
  template = parallel.on_every_host(template, parallel.device_mesh(jax.process_count()))
  restored = checkpoints.when_free(lambda: _best(experiment, directory, template))
  if not restored:
    raise ValueError(f"{directory} has no checkpoint selected by validation; train first.")
  if len(restored) < (wanted := _wanted(experiment)):
    raise ValueError(f"{directory} has {len(restored)} intact checkpoints of the {wanted} of config.eval.ensemble.")
  steps = {"steps": [each.step for each in restored]} if experiment.evaluation.ensemble else {}
  chosen = {"by": "validation", "step": restored[0].step, **restored[0].extra, **steps}
  return [parallel.on_this_host(each.state) for each in restored], chosen


def _best(experiment: Experiment, directory: pathlib.Path, template: TrainState) -> list[checkpoints.Restored]:
  """The best intact checkpoints, at most as many as the result needs; nothing is written."""
  order, best = _ranked(_ranks(experiment, directory), directory / BEST), list[checkpoints.Restored]()
  while order and len(best) < _wanted(experiment):
    try:
      restored = checkpoints.restore_first(directory / BEST, template, order)
    except checkpoints.BusyError:
      raise
    except ValueError:
      if not best:
        raise
      break
    assert restored is not None  # `order` is not empty
    best.append(restored)
    order = order[order.index(restored.step) + 1 :]
  return best


def _wanted(experiment: Experiment) -> int:
  return experiment.evaluation.ensemble or 1


def _open(experiment: Experiment, directory: pathlib.Path) -> checkpoints.Manager:
  # One more than are ever kept, so that orbax removes none by its age.
  return checkpoints.open_manager(directory / BEST, max_to_keep=_wanted(experiment) + _SPARE + 2)


def _ranks(experiment: Experiment, directory: pathlib.Path) -> dict[int, float]:
  """The rank of each validated meta-step; higher is better."""
  metric = experiment.spec.metric
  # As pairs, since JSON turns numbers that are keys into text.
  return dict(hosts.from_first(lambda: [[row["step"], _rank(metric, row[metric])] for row in rows(directory)]))


def _ranked(ranks: Mapping[int, float], source: checkpoints.Source) -> list[int]:
  """The steps of the existing checkpoints, best first; of equal ones the earlier first."""
  return sorted(checkpoints.steps(source), key=lambda step: (-ranks.get(step, float("-inf")), step))


def _measured(experiment: Experiment) -> Callable[[TrainState], dict[str, Any]]:
  settings, data = experiment.evaluation, experiment.data
  val = data.val
  assert val is not None  # `build` refuses validation without it
  key = jax.random.fold_in(jax.random.key(settings.seed), _VAL_STREAM)
  metric = experiment.spec.metric
  evaluate = measure.evaluator(experiment, metric=metric, others=False)

  def measured(state: TrainState) -> dict[str, Any]:
    summary = evaluate(state, val, key, settings.val_tasks).summary()
    return {metric: summary["mean"], **{name: summary[name] for name in ("ci95", "num_tasks")}}

  return measured


def _rank(metric: str, value: float | None) -> float:
  """Higher is better; NaN, which is None in a file, is worst."""
  if value is None or value != value:
    return float("-inf")
  return value if metric == "accuracy" else -value
