"""Restoring checkpoints: the first of several that is intact, or only the meta-parameters."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from warpjax.training.checkpoints import files
from warpjax.training.checkpoints.saving import Manager, Source, directory_of, steps, writes
from warpjax.types import MetaParams, PyTree

T = TypeVar("T")

_SAVING = "*.orbax-checkpoint-tmp*"  # the folders of saves in progress
_REPLACED = "was replaced while it was read; try again"
_OK, _FAILED, _BUSY = range(3)


class BusyError(ValueError):
  """A checkpoint cannot be read now: it is absent, is being replaced, or is the first and being written. Try again."""


class Restored(NamedTuple):
  """A restored checkpoint.

  Attributes:
    step: The meta-step that it was saved under.
    state: The state, in the template's structure, dtypes and placement.
    extra: The JSON object saved with it.
  """

  step: int
  state: PyTree
  extra: dict[str, Any]


def restore_latest(source: Source, template: PyTree, *, warn: Callable[[str], object] = print) -> Restored | None:
  """Restores the newest checkpoint that is whole.

  Args:
    source: As for `restore_first`.
    template: As for `restore_first`.
    warn: As for `restore_first`.

  Returns:
    The checkpoint, or None if there is none.

  Raises:
    BusyError: If the checkpoints are being replaced, or the first is being written.
    ValueError: As for `restore_first`.
  """
  return when_free(lambda: restore_first(source, template, list(reversed(steps(source))), warn=warn))


def restore_first(
  source: Source, template: PyTree, order: Sequence[int], *, warn: Callable[[str], object] = print
) -> Restored | None:
  """Restores the first checkpoint that is whole.

  One that cannot be read, or whose leaves do not have the SHA-256 they were saved with, is named through `warn`, and
  the next is used. The manager of a run also renames it to `damaged-STEP`.

  Args:
    source: From `open_manager`; or the directory, which is not changed.
    template: A state of the structure, shapes, dtypes and placement to restore into, or only the shapes and dtypes
      (`jax.eval_shape`).
    order: Steps of checkpoints, in the order in which they are tried.
    warn: Called with a message for each checkpoint that was not used.

  Returns:
    The first whole checkpoint, or None where `order` is empty.

  Raises:
    BusyError: If a checkpoint of `order` does not exist, or was deleted or replaced while it was read.
    ValueError: If a leaf of the template is neither array nor number; or if there are checkpoints and none can be
      used. Nothing is renamed then, since the likelier cause is a template of another model; differences are named by
      path and shape.

  Example:
    >>> import tempfile
    >>> from warpjax import checkpoints
    >>> with tempfile.TemporaryDirectory() as folder, checkpoints.open_manager(folder) as manager:
    ...   checkpoints.save(manager, 10, {"w": jax.numpy.ones(2)}, {"loss": 0.5})
    ...   restored = restore_first(folder, {"w": jax.numpy.zeros(2)}, order=[10])
    >>> restored.step, restored.state["w"].tolist(), restored.extra
    (10, [1.0, 1.0], {'loss': 0.5})
  """
  template = files.arrays(template, "template")
  return _first_whole(
    source,
    order,
    lambda folder: files.read(folder, template),
    lambda folder: files.misfits(folder, template),
    warn,
  )


def restore_meta_params(
  source: Source, template: MetaParams | None = None, *, step: int | None = None, warn: Callable[[str], object] = print
) -> Restored:
  """Restores only the meta-parameters, for inference; the optimizer's state is neither built nor read.

  Args:
    source: The directory of checkpoints, or a manager, of states with a field `meta_params`, such as `TrainState`.
    template: Meta-parameters, or their shapes and dtypes (`jax.eval_shape`). None returns the saved tree: dicts and
      lists are kept, NamedTuples become dicts, tuples become lists, and integer keys of dicts become strings.
    step: The checkpoint; None for the newest that is whole.
    warn: Called with a message for each checkpoint that was not used.

  Returns:
    A `Restored` whose state is a `MetaParams`.

  Raises:
    BusyError: If the checkpoint was replaced while it was read.
    ValueError: If there is no such checkpoint, or it is damaged, or the template does not fit it; differences are named
      by path and shape.

  Example:
    >>> import tempfile, jax.numpy as jnp, optax, warpjax as wj
    >>> params = {"w": jnp.ones((2, 3))}
    >>> state = wj.training.init(jax.random.key(0), wj.rules.meta_sgd(0.1), params, (), optax.adam(1e-3))
    >>> with tempfile.TemporaryDirectory() as folder, wj.checkpoints.open_manager(folder) as manager:
    ...   wj.checkpoints.save(manager, 10, state)
    ...   meta_params = restore_meta_params(folder).state
    >>> meta_params.initial["w"].shape, meta_params.rule["w"].shape
    ((2, 3), (2, 3))
  """
  template = files.arrays(template, "template")

  def read(folder: pathlib.Path) -> tuple[MetaParams, dict[str, Any]]:
    block = files.read_block(folder, "meta_params", template)
    return block if template is not None else MetaParams(**block), files.read_record(folder)["extra"]

  def newest() -> Restored:
    saved = steps(source)
    order = saved[::-1] if step is None else [each for each in saved if each == step]
    if not order:
      wanted, directory = "" if step is None else f" {step}", directory_of(source)
      has = f"it has {_listed(saved)}" if os.path.exists(directory) else "it does not exist"
      raise ValueError(f"{directory} holds no checkpoint{wanted}; {has}.")
    explain = lambda folder: files.misfits(folder, template, "meta_params") if template is not None else ""
    restored = _first_whole(source, order, read, explain, warn)
    assert restored is not None  # there was one to try
    return restored

  return when_free(newest)


def when_free(function: Callable[[], T], *, tries: int = 5, seconds: float = 0.2) -> T:
  """Calls a function that reads checkpoints, and again if one was being replaced.

  Args:
    function: Called without arguments; it should list the checkpoints at each call.
    tries: Calls at most.
    seconds: Pause between two calls.

  Returns:
    What it returns.

  Raises:
    BusyError: If the last call raised it.
  """
  for _ in range(tries - 1):
    try:
      return function()
    except BusyError:
      time.sleep(seconds)
  return function()


def _first_whole(
  source: Source,
  order: Sequence[int],
  read: Callable[[pathlib.Path], tuple[PyTree, dict[str, Any]]],
  explain: Callable[[pathlib.Path], str],
  warn: Callable[[str], object],
) -> Restored | None:
  directory, failures = directory_of(source), dict[int, str]()
  for step in order:
    restored, failure, status = _attempt(directory / str(step), read, explain)
    worst = _worst_of_hosts(status)
    if worst == _BUSY:
      raise BusyError(f"checkpoint {step} in {directory} {failure or _REPLACED}.")
    if worst == _FAILED or restored is None:
      failures[step] = failure or "another process could not read it"
      continue
    for damaged, reason in failures.items():
      aside = f"; it is kept as damaged-{damaged}" if writes(source) else ""
      warn(f"Checkpoint {damaged} is damaged, so {step} is used{aside}. ({reason})")
      if writes(source):
        _put_aside(source, damaged)
    return Restored(step, *restored)
  if failures:
    reasons = "; ".join(f"{step}: {reason}" for step, reason in failures.items())
    raise ValueError(f"No checkpoint in {directory} can be used: each is damaged or of another model. {reasons}.")
  if not writes(source) and any(directory.glob(_SAVING)):
    raise BusyError(f"{directory} holds no checkpoint yet, and one is being written or was cut short. Try again.")
  return None


def _attempt(
  folder: pathlib.Path, read: Callable[[pathlib.Path], Any], explain: Callable[[pathlib.Path], str]
) -> tuple[Any, str, int]:
  """What was read, or why it was not, and whether the checkpoint is whole, failed or was replaced meanwhile."""
  before = files.identity(folder)
  try:
    return read(folder), "", _OK
  except Exception as error:  # orbax, tensorstore and json raise many types, with the same meaning
    if before is None:
      return None, f"is not there: never saved, or deleted since; there are {_listed(steps(folder.parent))}", _BUSY
    if files.identity(folder) != before:
      return None, "", _BUSY
    with contextlib.suppress(Exception):  # its description may be damaged too
      if differing := explain(folder):
        return None, f"it does not fit the template: {differing}", _FAILED
    return None, f"{type(error).__name__}: {_first_line(error)}", _FAILED


def _listed(saved: Sequence[int]) -> str:
  return ", ".join(map(str, saved)) or "none"


def _put_aside(manager: Manager, step: int) -> None:
  if jax.process_index() == 0:
    source = os.path.join(manager.directory, str(step))
    target = os.path.join(manager.directory, f"damaged-{step}")
    os.rename(source, target if not os.path.exists(target) else f"{target}-{os.getpid()}")
  _worst_of_hosts(_OK)  # the others wait for the renaming
  manager.reload()


def _worst_of_hosts(status: int) -> int:
  """The worst status of any process of the run, which must all ask."""
  if jax.process_count() == 1:
    return status
  from jax.experimental import multihost_utils

  return int(np.max(multihost_utils.process_allgather(np.int32(status))))


def _first_line(error: Exception) -> str:
  return str(error).splitlines()[0][:200].rstrip(":. ") if str(error) else "no message"
