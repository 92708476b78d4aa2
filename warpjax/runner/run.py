"""Trains and evaluates a config in a workdir, as `warpjax train` does."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from warpjax.runner import loop, measure, origins, selection, workdir
from warpjax.runner.config import settings
from warpjax.runner.experiment import Experiment, build
from warpjax.runner.machine import hosts, provenance
from warpjax.runner.machine.interrupts import Interrupted
from warpjax.runner.plots import canvas, figures
from warpjax.runner.reporting import progress, watch
from warpjax.runner.reporting.writers import Writer
from warpjax.training import TrainState

PICTURE = "curves.png"


def train_and_evaluate(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  *,
  on_nonfinite: loop.OnNonfinite = "stop",
  init: origins.InitFrom | None = None,
  writers: Sequence[str | Writer] = (),
  data_dir: str | None = None,
  cache_dir: str | None = None,
) -> measure.Result:
  """Trains a config in a workdir, starting from its newest checkpoint, and evaluates it.

  A finished workdir returns its result. With more `num_meta_steps` than before it trains on, and the older result is
  kept as `result_N.json`, where N is its number of meta-steps.

  Args:
    config: Nested dicts, as `load_config` returns them.
    directory: The workdir; with many hosts, one that all of them can read.
    on_nonfinite: As for `loop.train`.
    init: As for `loop.train`; a workdir with checkpoints must have started from the same.
    writers: As for `loop.train`.
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.

  Returns:
    The result.

  Raises:
    Interrupted: If a signal stopped training; a `SystemExit` with the exit status of a command.
    ValueError: For an invalid config, or a workdir of another one.
    FileNotFoundError: For missing data.
    FloatingPointError: For a meta-loss, meta-gradient or parameter that is not finite.
  """
  programs = _build(config, directory, on_nonfinite, data_dir=data_dir, cache_dir=cache_dir)
  config = programs.experiment.settings
  finished = result_of(pathlib.Path(directory), config, init)
  if finished is not None:
    return finished
  with locked(directory) as path:
    _prepare(path, config)
    return _run(programs, path, init, writers)


class Restored(NamedTuple):
  """A run, read from its workdir.

  Attributes:
    experiment: The built config: data, network, inner loops, readouts.
    state: The checkpoint that the result was measured on.
  """

  experiment: Experiment
  state: TrainState


def restore(
  directory: str | os.PathLike[str], *, data_dir: str | None = None, cache_dir: str | None = None
) -> Restored:
  """Reads a run from its workdir, in which it may still be training; nothing is written.

  Args:
    directory: The workdir.
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.

  Returns:
    The experiment and its state.

  Raises:
    ValueError: For a folder without a run, or a run without a checkpoint.
    FileNotFoundError: For missing data.
  """
  path = pathlib.Path(directory)
  experiment = build(workdir.config_of_run(path, "directory"), data_dir=data_dir, cache_dir=cache_dir)
  return Restored(experiment, loop.restore(experiment, path))


def check(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  *,
  on_nonfinite: loop.OnNonfinite = "stop",
  **places: Any,
) -> None:
  """Raises the errors of `train_and_evaluate` for an invalid config or missing data; nothing is written."""
  _build(config, directory, on_nonfinite, **places)


def _build(
  config: Mapping[str, Any], directory: str | os.PathLike[str], on_nonfinite: loop.OnNonfinite, **places: Any
) -> loop.Programs:
  """Traces the programs, so that errors are raised before anything is compiled or written."""
  experiment = build(config, **places)
  canvas.require()
  programs = loop.Programs(experiment, on_nonfinite)
  hosts.check_same("the config", _identity(experiment.settings))
  hosts.check_same("the data", workdir.as_text(experiment.data.description))
  if not pathlib.Path(directory, workdir.RESULT).exists():  # a finished run is only read
    programs.trace()
  return programs


@contextlib.contextmanager
def locked(directory: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Makes and locks the workdir."""
  path = pathlib.Path(hosts.from_first(lambda: os.fspath(workdir.make(directory))))
  with workdir.lock(path) if hosts.is_first() else contextlib.nullcontext():
    yield path


def _prepare(path: pathlib.Path, config: Mapping[str, Any]) -> None:
  hosts.from_first(lambda: os.fspath(workdir.prepare(path, config, settings.identity)))


def _identity(config: Mapping[str, Any]) -> str:
  return workdir.as_text(settings.identity(config))


def result_of(path: pathlib.Path, config: Mapping[str, Any], init: origins.InitFrom | None) -> measure.Result | None:
  """The result of a finished run or sweep of this config, else None; it only reads, so it needs no lock."""

  def read() -> Any:
    before = workdir.read_json(path / workdir.CONFIG) if (path / workdir.RESULT).exists() else None
    same = before is not None and _identity(before) == _identity(config)
    return workdir.read_json(path / workdir.RESULT) if same else None

  finished = hosts.from_first(read)
  if finished is not None:
    origins.check_same(init, finished.get(origins.INIT_FROM))
  return finished


def _run(
  programs: loop.Programs,
  path: pathlib.Path,
  init: origins.InitFrom | None = None,
  writers: Sequence[str | Writer] = (),
) -> measure.Result:
  """Trains and evaluates in a prepared and locked workdir, unless another process has done so."""
  finished = result_of(path, programs.experiment.settings, init)
  if finished is not None:
    return finished
  with watch.full_disk_told(path):
    return _train_and_evaluate(programs, path, init, writers)


def _train_and_evaluate(
  programs: loop.Programs, path: pathlib.Path, init: origins.InitFrom | None, writers: Sequence[str | Writer]
) -> measure.Result:
  experiment = programs.experiment
  trained = loop.train(programs, path, init=init, writers=writers)
  if trained.signal:
    hosts.say(_stopped_at(int(trained.state.step), experiment.run.num_meta_steps))
    raise Interrupted(trained.signal)
  states, chosen = [trained.state], dict[str, Any]()
  if experiment.evaluation.val_tasks:
    states, selected = selection.best(experiment, path, trained.state)
    chosen = {"num_meta_steps": int(trained.state.step), "selected": selected}
  measured, per_task = measure.measure(experiment, states[0], members=states[1:])
  devices = loop.num_devices(experiment.run.tasks_per_step, experiment.outer_step.in_turn)
  spent = {"wall_seconds": round(trained.seconds, 3), "num_devices": devices, "skipped": trained.skipped}
  result = {**measured, **chosen, **spent, "provenance": provenance.of_run()}
  result = origins.recorded(result, trained.origin)

  def write() -> Any:
    np.save(path / workdir.PER_TASK, per_task)
    with progress.waiting(f"Drawing {path / PICTURE}"):
      figures.draw([path], path / PICTURE, results=[result])
    workdir.write_json(path / workdir.RESULT, result)
    return workdir.read_json(path / workdir.RESULT)

  return hosts.from_first(write)


def _stopped_at(step: int, num_meta_steps: int) -> str:
  """The message for a run that a signal stopped."""
  if step == 0:
    return "Stopped before the first meta-step, so nothing is saved; the same command begins again."
  if step < num_meta_steps:
    return f"Stopped at meta-step {step}, which is saved; the same command continues."
  return f"Stopped at meta-step {step}, the last, which is saved; the same command continues with the evaluation."


def sweep(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  seeds: Sequence[int],
  *,
  on_nonfinite: loop.OnNonfinite = "stop",
  init: origins.InitFrom | None = None,
  writers: Sequence[str | Writer] = (),
  **places: Any,
) -> measure.Result:
  """`train_and_evaluate` for each seed, in `directory/seed_N`, and their combination in `directory/result.json`."""
  paths, results = [pathlib.Path(directory, f"seed_{seed}") for seed in seeds], []
  configs = [settings.resolved({**config, "seed": seed}) for seed in seeds]
  shared = {key: value for key, value in configs[0].items() if key != "seed"}
  programs = _build(
    configs[0], paths[0], on_nonfinite, **places
  )  # raises for an invalid config before anything is written
  finished = result_of(pathlib.Path(directory), shared, init)
  if finished is not None and finished["seeds"] == list(seeds):
    return finished
  with locked(directory) as whole:
    _prepare(whole, shared)
    for index, (one, path) in enumerate(zip(configs, paths, strict=True)):
      hosts.say(f"[{index + 1}/{len(seeds)}] seed={one['seed']}", error=True)
      programs = _build(one, path, on_nonfinite, **places) if index else programs
      with locked(path):
        _prepare(path, one)
        result = _run(programs, path, init, writers)
      results.append(result)
      init = init or origins.of_result(result)  # a resumed command need not repeat it

    def write() -> Any:
      per_task = [np.load(path / workdir.PER_TASK) for path in paths]
      np.save(whole / workdir.PER_TASK, np.mean(per_task, axis=0))
      figures.draw(paths, whole / PICTURE, results=results)
      combined = origins.recorded(measure.combine(results, per_task), origins.of_sweep(results))
      workdir.write_json(whole / workdir.RESULT, combined)
      return workdir.read_json(whole / workdir.RESULT)

    return hosts.from_first(write)
