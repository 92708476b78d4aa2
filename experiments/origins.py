"""Where a run starts, as its result records it: from another run's meta-parameters, or its own shorter training."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from experiments import selection, workdir
from warpjax import checkpoints
from warpjax.types import MetaParams

INIT_FROM, EXTENDED = "init_from", "extended"


class InitFrom(NamedTuple):
  """Another run whose meta-parameters this one starts from.

  Attributes:
    directory: Its workdir.
    step: The checkpoint; None for the one that its result is of, or the newest where it has none.
  """

  directory: str
  step: int | None = None


def load(init: InitFrom, template: MetaParams) -> tuple[MetaParams, dict[str, Any]]:
  """The meta-parameters of another run, and the record of them: `workdir`, `step` and the SHA-256 of their leaves.

  Args:
    init: The run.
    template: The shapes and dtypes that this run needs.

  Returns:
    The meta-parameters and the record.

  Raises:
    ValueError: If there is no such checkpoint, or it does not fit the template; the paths and shapes that differ are
      named.
  """
  path = pathlib.Path(init.directory)
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
    raise ValueError(f"--init_from={init.directory} cannot be used: {error}") from None
  record = {"workdir": os.path.abspath(path), "step": restored.step, "sha256": checkpoints.digest(restored.state)}
  return restored.state, record


def going_on(
  restored: checkpoints.Restored, num_meta_steps: int, init: InitFrom | None, say: Callable[[str], object]
) -> dict[str, Any]:
  """The record of a run that goes on from its own checkpoint.

  Args:
    restored: The checkpoint.
    num_meta_steps: Those of the run from now on.
    init: What the command says that the run started from; None where it says nothing.
    say: Called with a message where the run is longer than before.

  Returns:
    `init_from`, the record of `load`, and `extended`, a list of `{"step": ..., "num_meta_steps": [before, after]}`;
    each only where it applies.

  Raises:
    ValueError: If the run started from something else than the command says.
  """
  record = dict(restored.extra.get("origin", {}))
  check_same(init, record.get(INIT_FROM))
  before = restored.extra.get("num_meta_steps", num_meta_steps)
  if before != num_meta_steps:
    record[EXTENDED] = [
      *record.get(EXTENDED, []),
      {"step": restored.step, "num_meta_steps": [before, num_meta_steps]},
    ]
    say(
      f"This run was of {before} meta-steps and is now of {num_meta_steps}. A schedule of the outer learning rate runs "
      f"over all meta-steps, so from meta-step {restored.step} on it is the schedule of {num_meta_steps}."
    )
  return record


def check_same(init: InitFrom | None, record: Mapping[str, Any] | None) -> None:
  """Raises a ValueError if a run's record is of another start than the command says, which may say nothing."""
  if init is None:
    return
  asked = os.path.abspath(init.directory), init.step
  if record is None or asked not in ((record["workdir"], None), (record["workdir"], record["step"])):
    began = f"{record['workdir']}, meta-step {record['step']}" if record else "its own initial parameters"
    step = "" if init.step is None else f" --init_step={init.step}"
    raise ValueError(f"--init_from={init.directory}{step}: this run began from {began}; use another --workdir.")
