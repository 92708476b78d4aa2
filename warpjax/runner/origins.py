"""The origin of a run, which its result records: the meta-parameters of another run, or a shorter run of its own."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from warpjax.runner import selection, workdir
from warpjax.training import checkpoints
from warpjax.types import MetaParams

INIT_FROM, EXTENDED = "init_from", "extended"


class InitFrom(NamedTuple):
  """Another run, from whose meta-parameters this one starts.

  Attributes:
    directory: Its workdir.
    step: The checkpoint; None for the one of its result, or the newest if it has no result.
  """

  directory: str
  step: int | None = None


def from_flags(directory: str | None, step: int | None) -> InitFrom | None:
  """The start that `--init_from` and `--init_step` name; None without them.

  Raises:
    ValueError: For a step without a directory.
  """
  if directory is None and step is not None:
    raise ValueError(f"--init_step needs --init_from=WORKDIR; got --init_step={step}.")
  return None if directory is None else InitFrom(directory, step)


def load(init: InitFrom, template: MetaParams) -> tuple[MetaParams, dict[str, Any]]:
  """The meta-parameters of another run, and their record: `workdir`, `step` and the SHA-256 of their leaves.

  Args:
    init: The run.
    template: The shapes and dtypes that this run needs.

  Returns:
    The meta-parameters and the record.

  Raises:
    ValueError: If there is no such checkpoint, if it does not fit the template, with the paths and shapes that differ,
      or for the workdir of a sweep.
  """
  path = pathlib.Path(init.directory)
  if config := workdir.read_json(path / workdir.CONFIG):
    workdir.check_is_one_run("--init_from", path, config)
  result = workdir.read_json(path / workdir.RESULT) or {}
  step = result.get("selected", {}).get("step") if init.step is None else init.step
  folder = path / (selection.BEST if step in checkpoints.steps(path / selection.BEST) else workdir.CHECKPOINTS)
  if not checkpoints.steps(folder):
    raise ValueError(f"--init_from must be a workdir with checkpoints; {path} has none.")
  try:
    restored = checkpoints.restore_meta_params(folder, template, step=step)
  except checkpoints.BusyError:
    raise
  except ValueError as error:
    raise ValueError(f"--init_from={init.directory}: {error}") from None
  record = {"workdir": os.path.abspath(path), "step": restored.step, "sha256": checkpoints.digest(restored.state)}
  return restored.state, record


def going_on(
  restored: checkpoints.Restored,
  num_meta_steps: int,
  init: InitFrom | None,
  say: Callable[[str], object],
  *,
  has_schedule: bool,
) -> dict[str, Any]:
  """The origin of a run that resumes from its own checkpoint.

  Args:
    restored: The checkpoint.
    num_meta_steps: The run's number of meta-steps from now on.
    init: The start that the command names; None if it names none.
    say: Called with a message if the run is extended.
    has_schedule: Whether the outer learning rate depends on the number of meta-steps.

  Returns:
    `init_from`, the record of `load`, and `extended`, a list of `{"step": ..., "num_meta_steps": [before, after]}`,
    each only if it applies.

  Raises:
    ValueError: If the run has another start than the command names.
  """
  record = dict(restored.extra.get("origin", {}))
  check_same(init, record.get(INIT_FROM))
  before = restored.extra.get("num_meta_steps", num_meta_steps)
  if before != num_meta_steps:
    record[EXTENDED] = [*record.get(EXTENDED, []), {"step": restored.step, "num_meta_steps": [before, num_meta_steps]}]
    schedule = f" The learning-rate schedule is now that of {num_meta_steps} meta-steps." if has_schedule else ""
    say(f"This run had {before} meta-steps and now has {num_meta_steps}.{schedule}")
  return record


def recorded(result: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
  """A result with the origin of its run; a run from another run's parameters has no published number."""
  kept = {key: value for key, value in result.items() if key != "published" or INIT_FROM not in origin}
  return kept | dict(origin)


def of_sweep(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The origin of a sweep: the start of its runs, and every extension of any of them."""
  started, extended = [result[INIT_FROM] for result in results if INIT_FROM in result], list[Any]()
  for result in results:
    extended += [each for each in result.get(EXTENDED, []) if each not in extended]
  origin = {INIT_FROM: started[0] if started else None, EXTENDED: extended}
  return {name: value for name, value in origin.items() if value}


def of_result(result: Mapping[str, Any]) -> InitFrom | None:
  """The start of the run of a result, as a command names it; None for its own parameters."""
  record = result.get(INIT_FROM)
  return InitFrom(record["workdir"], record["step"]) if record else None


def check_same(init: InitFrom | None, record: Mapping[str, Any] | None) -> None:
  """Raises a ValueError if a run's record has another start than the command names; it may name none."""
  if init is None:
    return
  asked = os.path.abspath(init.directory), init.step
  if record is None or asked not in ((record["workdir"], None), (record["workdir"], record["step"])):
    began = f"{record['workdir']}, meta-step {record['step']}" if record else "its own initial parameters"
    step = "" if init.step is None else f" --init_step={init.step}"
    raise ValueError(f"--init_from={init.directory}{step}: this run began from {began}; use another --workdir.")
