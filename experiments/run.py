"""One config in, one workdir with a result out: what `experiments.train` runs."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import experiment as experiments
from experiments import figures, hosts, loop, measure, schema, selection, workdir


def train_and_evaluate(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  *,
  on_nonfinite: loop.OnNonfinite = "stop",
  data_dir: str | None = None,
  cache_dir: str | None = None,
) -> dict[str, Any] | int:
  """Trains a config in a workdir, from wherever it stands, and evaluates it.

  Args:
    config: Nested dicts, as `experiments.experiment.build` takes them.
    directory: The workdir; with many hosts, one that they all see.
    on_nonfinite: As for `loop.train`.
    data_dir: Where prepared data are.
    cache_dir: Where arrays made from them go.

  Returns:
    The result, or the number of the signal that stopped training.

  Raises:
    ValueError: For a bad config, or a workdir of another one.
    FileNotFoundError: For data that are not there.
    FloatingPointError: For a meta-loss, meta-gradient or parameters that are not finite.
  """
  programs = _build(config, directory, on_nonfinite, data_dir=data_dir, cache_dir=cache_dir)
  return _run(programs, _prepare(directory, schema.given(config)))


def _build(
  config: Mapping[str, Any], directory: str | os.PathLike[str], on_nonfinite: loop.OnNonfinite, **places: Any
) -> loop.Programs:
  """Traced, so that what is wrong shows before anything is compiled or written."""
  experiment = experiments.build(config, **places)
  programs = loop.Programs(experiment, on_nonfinite)
  hosts.check_same("the config", schema.given(config))
  hosts.check_same("the data", experiment.data.description)
  if not pathlib.Path(directory, workdir.RESULT).exists():  # a finished run is only read
    programs.trace()
  return programs


def _prepare(directory: str | os.PathLike[str], settings: Mapping[str, Any]) -> pathlib.Path:
  return pathlib.Path(hosts.from_first(lambda: os.fspath(workdir.prepare(directory, settings))))


def _run(programs: loop.Programs, path: pathlib.Path) -> Any:
  experiment = programs.experiment
  with workdir.lock(path) if hosts.is_first() else contextlib.nullcontext():
    finished = hosts.from_first(lambda: workdir.read_json(path / workdir.RESULT))
    if finished is not None:
      return finished
    trained = loop.train(programs, path)
    if trained.signal:
      hosts.say(f"Stopped at meta-step {int(trained.state.step)}, which is saved; the same command goes on.")
      return trained.signal
    states, chosen = [trained.state], {}
    if experiment.evaluation.val_tasks:
      states, found = selection.best(experiment, path, trained.state)
      chosen = {"num_meta_steps": int(trained.state.step), "selected": found}
    result, per_task = measure.measure(experiment, states[0], members=states[1:])
    devices = loop.num_devices(experiment.run.tasks_per_step)
    result |= chosen | {
      "wall_seconds": round(trained.seconds, 3),
      "num_devices": devices,
      "skipped": trained.skipped,
    }

    def write() -> Any:
      np.save(path / workdir.PER_TASK, per_task)
      figures.draw([path], path / "curves.png", results=[result])
      workdir.write_json(path / workdir.RESULT, result)
      return workdir.read_json(path / workdir.RESULT)

    return hosts.from_first(write)


def sweep(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  seeds: Sequence[int],
  *,
  on_nonfinite: loop.OnNonfinite = "stop",
  **places: Any,
) -> Any:
  """`train_and_evaluate` for each seed, in `directory/seed_N`, and their combination in `directory/result.json`."""
  settings, results, paths = schema.given(config), [], []
  for seed in seeds:
    one, path = {**settings, "seed": seed}, pathlib.Path(directory, f"seed_{seed}")
    programs = _build(one, path, on_nonfinite, **places)  # a bad config is refused before anything is written
    whole = _prepare(directory, {key: value for key, value in settings.items() if key != "seed"})
    paths.append(_prepare(whole / path.name, one))
    result = _run(programs, paths[-1])
    if isinstance(result, int):
      return result
    results.append(result)

  def write() -> Any:
    per_task = [np.load(path / workdir.PER_TASK) for path in paths]
    np.save(whole / workdir.PER_TASK, np.mean(per_task, axis=0))
    figures.draw(paths, whole / "curves.png", results=results)
    workdir.write_json(whole / workdir.RESULT, measure.combine(results, per_task))
    return workdir.read_json(whole / workdir.RESULT)

  return hosts.from_first(write)
