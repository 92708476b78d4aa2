"""The checkpoint of the result, or those of an ensemble, chosen by validation tasks: never by test tasks."""

from __future__ import annotations

import contextlib
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
_SPARE = 1  # kept beside the best, should one of them be damaged
# Validation tasks come from a stream of their own, which neither training nor test tasks meet.
_VAL_STREAM = 0x7A11

Judge = Callable[[int, TrainState], None]
"""`(meta-step, state) -> None`: measures the state on validation tasks, and keeps it where it is of the best so far."""


@contextlib.contextmanager
def judge(experiment: Experiment, directory: pathlib.Path, first: int, write: Writer) -> Iterator[Judge]:
  """Opens the best checkpoints of a workdir, whose rows of validation are those up to meta-step `first`.

  Args:
    experiment: What is trained.
    directory: Its workdir.
    first: Where training starts; what was kept of later steps is removed, since they come again.
    write: Takes the rows of validation.

  Yields:
    A `Judge`, which does nothing for an experiment without validation tasks.
  """
  if not experiment.evaluation.val_tasks:
    yield lambda step, state: None
    return
  judged, metric, wanted = _judged(experiment), experiment.spec.metric, _wanted(experiment)
  with _open(experiment, directory) as manager:
    for step in checkpoints.steps(manager):
      if step > first:
        checkpoints.delete(manager, step)

    def consider(step: int, state: TrainState) -> None:
      found = judged(parallel.on_this_host(state))
      if hosts.is_first():
        write({"step": step, "split": "val", **found})
      ranks = _ranks(experiment, directory)
      mine = _rank(metric, found[metric])
      if sum(rank >= mine for earlier, rank in ranks.items() if earlier < step) < wanted:
        checkpoints.save(manager, step, state, found)
        for worse in _ranked(ranks, manager)[wanted + _SPARE :]:
          checkpoints.delete(manager, worse)

    yield consider


def rows(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The validation rows of `metrics.jsonl`."""
  return [row for row in workdir.read_metrics(directory) if row.get("split") == "val"]


def best(
  experiment: Experiment, directory: pathlib.Path, template: TrainState
) -> tuple[list[TrainState], dict[str, Any]]:
  """The states with the best validation, one without an ensemble, and what was measured of the first.

  Returns:
    The states, the best first, and `step`, the metric, `ci95`, `num_tasks`; of an ensemble its `steps` too.

  Raises:
    BusyError: Where a run replaced one while it was read.
    ValueError: Where there is none.
  """
  template = parallel.on_every_host(template, parallel.device_mesh(jax.process_count()))
  found = checkpoints.when_free(lambda: _best(experiment, directory, template))
  if not found:
    raise ValueError(f"{directory} holds no checkpoint chosen by validation; train first.")
  if len(found) < (wanted := _wanted(experiment)):
    raise ValueError(f"{directory} holds {len(found)} whole checkpoints of the {wanted} of config.eval.ensemble.")
  steps = {"steps": [each.step for each in found]} if experiment.evaluation.ensemble else {}
  chosen = {"by": "validation", "step": found[0].step, **found[0].extra, **steps}
  return [parallel.on_this_host(each.state) for each in found], chosen


def _best(experiment: Experiment, directory: pathlib.Path, template: TrainState) -> list[checkpoints.Restored]:
  """The best checkpoints that are whole, at most as many as the result is of; nothing on the disk changes."""
  order, found = _ranked(_ranks(experiment, directory), directory / BEST), list[checkpoints.Restored]()
  while order and len(found) < _wanted(experiment):
    try:
      restored = checkpoints.restore_first(directory / BEST, template, order)
    except checkpoints.BusyError:
      raise
    except ValueError:
      if not found:
        raise
      break
    assert restored is not None  # there was one to try
    found.append(restored)
    order = order[order.index(restored.step) + 1 :]
  return found


def _wanted(experiment: Experiment) -> int:
  return experiment.evaluation.ensemble or 1


def _open(experiment: Experiment, directory: pathlib.Path) -> checkpoints.Manager:
  # One more than are ever there, so that none goes by its age.
  return checkpoints.open_manager(directory / BEST, max_to_keep=_wanted(experiment) + _SPARE + 2)


def _ranks(experiment: Experiment, directory: pathlib.Path) -> dict[int, float]:
  """How good each validated meta-step was."""
  metric = experiment.spec.metric
  # As pairs, since the numbers that are keys of a JSON object come back as text.
  return dict(hosts.from_first(lambda: [[row["step"], _rank(metric, row[metric])] for row in rows(directory)]))


def _ranked(ranks: Mapping[int, float], source: checkpoints.Source) -> list[int]:
  """The steps of the checkpoints that are there, the best first, of equals the earlier."""
  return sorted(checkpoints.steps(source), key=lambda step: (-ranks.get(step, float("-inf")), step))


def _judged(experiment: Experiment) -> Callable[[TrainState], dict[str, Any]]:
  settings, data = experiment.evaluation, experiment.data
  val = data.val
  assert val is not None  # `build` refuses validation without it
  key = jax.random.fold_in(jax.random.key(settings.seed), _VAL_STREAM)
  metric = experiment.spec.metric
  evaluate = measure.evaluator(experiment, metric=metric, others=False)

  def judged(state: TrainState) -> dict[str, Any]:
    found = evaluate(state, val, key, settings.val_tasks).summary()
    return {metric: found["mean"], **{name: found[name] for name in ("ci95", "num_tasks")}}

  return judged


def _rank(metric: str, value: float | None) -> float:
  """Higher is better; what is not a number, None in a file, is worst."""
  if value is None or value != value:
    return float("-inf")
  return value if metric == "accuracy" else -value
