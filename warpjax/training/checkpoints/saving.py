"""A directory of checkpoints for the run that writes it: opening, listing, saving, deleting."""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
from typing import Any, Protocol, TypeGuard

import jax
import numpy as np

from warpjax.training.checkpoints import files
from warpjax.types import PyTree


class Manager(Protocol):
  """An open `orbax.checkpoint.CheckpointManager`, of the run that writes to its directory; the used methods."""

  @property
  def directory(self) -> Any:
    """Where the checkpoints are, a path."""

  def save(self, step: int, *, args: Any) -> bool:
    """Saves a checkpoint."""

  def delete(self, step: int) -> None:
    """Deletes one."""

  def reload(self) -> None:
    """Lists the checkpoints again."""

  def close(self) -> None:
    """Ends its work."""

  def __enter__(self) -> Manager: ...

  def __exit__(self, *error: object) -> None: ...


Source = Manager | str | os.PathLike[str]
"""A manager, or the directory of checkpoints, which is not changed."""

# Orbax moves deleted checkpoints into this folder, so that no reader sees half a checkpoint; it is emptied at once.
_DELETED = ".deleted"


def open_manager(directory: str | os.PathLike[str], *, max_to_keep: int = 3) -> Manager:
  """Opens a directory of checkpoints for writing.

  It is made if it does not exist, and leftovers of interrupted saves are removed, so only one process may have it open.

  Args:
    directory: Where the checkpoints are, one sub-directory for each.
    max_to_keep: The number of newest checkpoints to keep, at least 2, so that one is left if the last is damaged.

  Returns:
    The manager that `save`, `delete`, `restore_latest` and `steps` take; close it with `.close()`.

  Raises:
    ValueError: If `max_to_keep` is below 2.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_manager(folder) as manager:
    ...   steps(manager)
    []
  """
  import orbax.checkpoint as ocp

  if max_to_keep < 2:
    raise ValueError(f"max_to_keep must be at least 2, to have one to fall back to; got {max_to_keep}.")
  options = ocp.CheckpointManagerOptions(
    preservation_policy=ocp.checkpoint_managers.LatestN(max_to_keep),
    create=True,
    cleanup_tmp_directories=True,
    todelete_subdir=_DELETED,
    enable_async_checkpointing=False,  # when save returns, the checkpoint is on the disk
  )
  logging.getLogger("absl").addFilter(_is_no_merge_notice)
  manager = ocp.CheckpointManager(os.path.abspath(directory), options=options, handler_registry=files.handlers())
  _empty_deleted(manager)
  return manager


def steps(source: Source) -> list[int]:
  """The steps that have a complete checkpoint, ascending; none if the directory does not exist.

  Args:
    source: From `open_manager`, or the directory.

  Returns:
    The steps.
  """
  directory = directory_of(source)
  names = os.listdir(directory) if directory.is_dir() else []
  return sorted(int(name) for name in names if name.isdigit() and (directory / name).is_dir())


def save(manager: Manager, step: int, state: PyTree, extra: dict[str, Any] | None = None) -> None:
  """Saves `state` under `step`, with a SHA-256 of its leaves; on return it is on the disk.

  Args:
    manager: From `open_manager`.
    step: The meta-step, above those of the checkpoints that are there.
    state: A pytree of arrays and numbers; typed random keys keep their type.
    extra: A JSON object to save with it.

  Raises:
    ValueError: If there is a checkpoint at `step` or above it, a leaf is neither array nor number, or an array has no
      elements, which orbax does not save.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_manager(folder) as manager:
    ...   save(manager, 10, {"w": jax.numpy.ones(2)})
    ...   steps(manager)
    [10]
  """
  import orbax.checkpoint as ocp

  newest = max(steps(manager), default=-1)
  if step <= newest:
    raise ValueError(f"step must be above that of the newest checkpoint, {newest}; got {step}.")
  state = files.arrays(state, "state")
  for path, leaf in jax.tree.leaves_with_path(state):
    if not np.size(leaf):
      name = jax.tree_util.keystr(path)
      raise ValueError(f"state must have no arrays without elements; got the shape {np.shape(leaf)} at {name}.")
  # From the host: to save jax arrays, orbax reads tensorstore's counters, and each reading leaks (0.1.86).
  host = jax.tree.map(lambda leaf: np.asarray(files.raw_key(leaf)), state)
  record = files.record_of(host, extra or {})
  manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(host), record=ocp.args.JsonSave(record)))
  _empty_deleted(manager)


def delete(manager: Manager, step: int) -> None:
  """Deletes a checkpoint; a reader sees it whole or not at all.

  Args:
    manager: From `open_manager`.
    step: The meta-step that it was saved under.
  """
  manager.delete(step)
  _empty_deleted(manager)


def writes(source: Source) -> TypeGuard[Manager]:
  """Whether the source is an open manager, whose process may change the directory."""
  return not isinstance(source, str | os.PathLike)


def directory_of(source: Source) -> pathlib.Path:
  """The directory of checkpoints."""
  return pathlib.Path(os.path.abspath(source if isinstance(source, str | os.PathLike) else source.directory))


def _empty_deleted(manager: Manager) -> None:
  if jax.process_index() == 0:
    shutil.rmtree(os.path.join(manager.directory, _DELETED), ignore_errors=True)


def _is_no_merge_notice(record: logging.LogRecord) -> bool:
  """False for orbax's message at every save that is not in its packed format: that there is nothing to merge."""
  return "Skipping merge of OCDBT" not in str(record.msg)
