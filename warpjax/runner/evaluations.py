"""Evaluates a workdir again: more test tasks, or other settings of the test."""

from __future__ import annotations

import errno
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from warpjax.runner import loop, measure, origins, workdir
from warpjax.runner.config import settings
from warpjax.runner.experiment import build
from warpjax.runner.machine import hosts
from warpjax.runner.reporting import protocol


def evaluate(
  directory: str | pathlib.Path,
  num_tasks: int | None = None,
  *,
  changed: Mapping[str, Any] | None = None,
  name: str = "",
  data_dir: str | None = None,
  cache_dir: str | None = None,
) -> dict[str, Any]:
  """Evaluates the checkpoints of a workdir's result, and writes `evaluation.json` or `evaluation_NAME.json`.

  Args:
    directory: The workdir.
    num_tasks: Number of test tasks; None for the config's.
    changed: Settings of the test that replace the config's, such as `{"eval.num_steps": 5}`. The result lists them, and
      has no published number.
    name: Writes `evaluation_NAME.json`.
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.

  Returns:
    The result. In a workdir without write permission, nothing is written.

  Raises:
    ValueError: If the directory is no workdir, or has no checkpoint, or a setting does not belong to the test.
  """
  path = pathlib.Path(directory)
  config = workdir.config_of_run(path)
  if not re.fullmatch(r"[\w.-]*", name):
    raise ValueError(f"--name must be letters, digits, '_', '-' and '.'; got {name!r}.")
  if num_tasks is not None and "eval.num_tasks" in (changed or {}):
    raise ValueError("--num_tasks and --set=eval.num_tasks both give the number of test tasks; use one of them.")
  experiment = build(_with(config, changed or {}), data_dir=data_dir, cache_dir=cache_dir)
  (state, *members), origin = loop.restore_all(experiment, path)
  measured, _ = measure.measure(experiment, state, members=members, num_tasks=num_tasks)
  result = origins.recorded({**measured, **_chosen(path)}, origin)
  if changed:
    result = {key: value for key, value in result.items() if key != "published"} | {"changed": dict(changed)}
    result["protocol"] |= protocol.of_training(config["data"])
  file = path / (f"evaluation_{name}.json" if name else workdir.EVALUATION)
  try:
    workdir.write_json(file, result)
  except OSError as error:
    if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
      raise
    hosts.say(f"{file} cannot be written ({error.strerror}); the result is only printed.", error=True)
  return workdir.as_json(result)


def _chosen(path: pathlib.Path) -> dict[str, Any]:
  """The selection of the checkpoint by validation tasks, which only the run's own result records."""
  result = workdir.read_json(path / workdir.RESULT) or {}
  return {key: result[key] for key in ("num_meta_steps", "selected") if "selected" in result}


def _with(config: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
  """The config with other settings of its test; building it checks their names."""
  chosen, of_the_test = settings.marked(config, "chosen"), settings.marked(config, "test")
  result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
  for path, value in changed.items():
    table, _, key = path.partition(".")
    if path in chosen:
      raise ValueError(f"--set must not be {path}: the checkpoints of the result have been chosen; got {value}.")
    if not key or not (table == "eval" or path in of_the_test):
      allowed = ", ".join(["eval.*", *sorted(of_the_test)])
      raise ValueError(f"--set must be a setting of the test, one of {allowed}; got {path}={value}.")
    result.setdefault(table, {})[key] = value
  return result


def parsed(directory: str, overrides: Sequence[str]) -> dict[str, Any]:
  """The overrides `KEY=VALUE` of the command line by key, each value parsed as the type of its setting."""
  config = workdir.read_json(pathlib.Path(directory) / workdir.CONFIG) if overrides else None
  return settings.values(config, overrides) if config else dict(text.partition("=")[::2] for text in overrides)
