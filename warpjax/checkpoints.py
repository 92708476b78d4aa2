"""Checkpoints of a training state: atomic, verified on reading, and a damaged one falls back to the one before it.

Orbax writes the arrays and makes a save atomic, so a kill at any moment leaves the older checkpoints whole. It keeps no
checksum of the arrays, so ours rides beside them: a flipped bit on the disk is found instead of trained on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.types import PyTree

__all__ = ["Manager", "Restored", "digest", "open_manager", "restore_first", "restore_latest", "save", "steps"]

Manager = Any
"""An open `orbax.checkpoint.CheckpointManager`."""


class Restored(NamedTuple):
  """What came back from a checkpoint.

  Attributes:
    step: The meta-step that it was saved under.
    state: The state, in the template's structure, dtypes and placement.
    extra: The JSON object saved beside it.
  """

  step: int
  state: PyTree
  extra: dict[str, Any]


def open_manager(directory: str | os.PathLike[str], *, max_to_keep: int = 3) -> Manager:
  """Opens a directory of checkpoints, made if it is not there; leftovers of interrupted saves are removed.

  Args:
    directory: Where the checkpoints are, one sub-directory for each.
    max_to_keep: How many of the newest to keep, at least 2, so that there is one to fall back to.

  Returns:
    The manager that `save`, `restore_latest` and `steps` take; close it with `.close()`.

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
    max_to_keep=max_to_keep,
    create=True,
    cleanup_tmp_directories=True,
    enable_async_checkpointing=False,  # when save returns, the checkpoint is on the disk
  )
  logging.getLogger("absl").addFilter(_is_no_merge_notice)
  handlers = {
    # A folder for each leaf: saving in orbax's packed format (OCDBT) leaks strings for each leaf (tensorstore 0.1.86).
    "state": ocp.StandardCheckpointHandler(use_ocdbt=False),
    "record": ocp.JsonCheckpointHandler(),
  }
  return ocp.CheckpointManager(os.path.abspath(directory), options=options, item_handlers=handlers)


def steps(manager: Manager) -> list[int]:
  """The steps that have a complete checkpoint, ascending."""
  return sorted(manager.all_steps())


def save(manager: Manager, step: int, state: PyTree, extra: dict[str, Any] | None = None) -> None:
  """Saves `state` under `step`, with a SHA-256 of its leaves; on return it is on the disk.

  Args:
    manager: From `open_manager`.
    step: The meta-step, above those of the checkpoints that are there.
    state: A pytree of arrays; typed random keys keep their type.
    extra: A JSON object to keep beside it.

  Raises:
    ValueError: If there is a checkpoint at `step` or above it, or an array has no elements, which orbax does not save.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_manager(folder) as manager:
    ...   save(manager, 10, {"w": jnp.ones(2)})
    ...   steps(manager)
    [10]
  """
  import orbax.checkpoint as ocp

  newest = max(steps(manager), default=-1)
  if step <= newest:
    raise ValueError(f"step must be above that of the newest checkpoint, {newest}; got {step}.")
  for path, leaf in jax.tree.leaves_with_path(state):
    if not np.size(leaf):
      name = jax.tree_util.keystr(path)
      raise ValueError(f"state must have no arrays without elements; got the shape {np.shape(leaf)} at {name}.")
  # From the host: saving jax arrays, orbax reads tensorstore's counters, each reading of which leaks (0.1.86).
  host = jax.tree.map(lambda leaf: np.asarray(_raw(leaf)), state)
  record = {"sha256": digest(host), "extra": extra or {}}
  manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(host), record=ocp.args.JsonSave(record)))


def restore_latest(manager: Manager, template: PyTree, *, warn: Callable[[str], object] = print) -> Restored | None:
  """Restores the newest checkpoint that is whole; see `restore_first`."""
  return restore_first(manager, template, list(reversed(steps(manager))), warn=warn)


def restore_first(
  manager: Manager, template: PyTree, order: Sequence[int], *, warn: Callable[[str], object] = print
) -> Restored | None:
  """Restores the first checkpoint that is whole.

  One that cannot be read, or whose leaves do not have the SHA-256 they were saved with, is named through `warn`, put
  aside as `damaged-STEP`, and the next is used.

  Args:
    manager: From `open_manager`.
    template: A state of the structure, shapes, dtypes and placement to restore into, or the shapes and dtypes alone
      (`jax.eval_shape`).
    order: Steps of checkpoints, as they are tried.
    warn: Called with a message for each checkpoint that was not used.

  Returns:
    The first whole checkpoint, or None where `order` is empty.

  Raises:
    ValueError: If there are checkpoints and none can be used. Nothing is put aside then, since the likelier cause is a
      template of another model.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, open_manager(folder) as manager:
    ...   save(manager, 10, {"w": jnp.ones(2)}, {"loss": 0.5})
    ...   found = restore_first(manager, {"w": jnp.zeros(2)}, order=[10])
    >>> found.step, found.state["w"].tolist(), found.extra
    (10, [1.0, 1.0], {'loss': 0.5})
  """
  failures: dict[int, Exception] = {}
  for step in order:
    failure, restored = None, None
    try:
      restored = _restore(manager, step, template)
    except Exception as error:  # orbax, tensorstore and json raise many types, and each means the same here
      failure = error
    if _on_any_host(failure is not None) or restored is None:
      failures[step] = failure or ValueError("another process could not read it")
      continue
    for damaged, reason in failures.items():
      warn(
        f"Checkpoint {damaged} is damaged, so {step} is used; it is kept as damaged-{damaged}. {_first_line(reason)}"
      )
      _put_aside(manager, damaged)
    return restored
  if failures:
    reasons = "; ".join(f"{step}: {_first_line(reason)}" for step, reason in failures.items())
    raise ValueError(
      f"No checkpoint in {manager.directory} can be used: each is damaged or of another model. {reasons}"
    )
  return None


def digest(tree: PyTree) -> str:
  """The SHA-256 of a pytree's leaves with their paths, dtypes and shapes, as hexadecimal digits."""
  result = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(_raw(leaf))
    result.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
    result.update(np.ascontiguousarray(array).tobytes())
  return result.hexdigest()


def _is_no_merge_notice(record: logging.LogRecord) -> bool:
  """False for what orbax says at every save that is not in its packed format: that there is nothing to merge."""
  return "Skipping merge of OCDBT" not in str(record.msg)


def _restore(manager: Manager, step: int, template: PyTree) -> Restored:
  import orbax.checkpoint as ocp

  raw = jax.tree.map(_raw, template)
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, raw)
  args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), record=ocp.args.JsonRestore())
  found = manager.restore(step, args=args)
  expected, actual = found.record["sha256"], digest(found.state)
  if actual != expected:
    raise ValueError(f"its leaves have SHA-256 {actual[:12]}..., and were saved with {expected[:12]}...")
  placed = jax.tree.map(_place_like, found.state, raw)
  return Restored(step, jax.tree.map(_as_key, placed, template), found.record["extra"])


def _raw(leaf: Any) -> Any:
  if not _is_key(leaf):
    return leaf
  return jax.random.key_data(leaf) if isinstance(leaf, jax.Array) else jax.eval_shape(jax.random.key_data, leaf)


def _as_key(leaf: jax.Array, like: Any) -> jax.Array:
  return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(jnp.empty((), like.dtype))) if _is_key(like) else leaf


def _is_key(leaf: Any) -> bool:
  return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _place_like(leaf: jax.Array, like: Any) -> jax.Array:
  """Leaves a restored array as free to move between devices as the template's; orbax pins what it restores."""
  if not isinstance(like, jax.Array):
    return jnp.asarray(np.asarray(leaf))
  if not like.is_fully_addressable:
    return leaf
  if like.committed:
    return jax.device_put(leaf, like.sharding)
  return jnp.asarray(np.asarray(leaf))


def _put_aside(manager: Manager, step: int) -> None:
  if jax.process_index() == 0:
    source = os.path.join(manager.directory, str(step))
    target = os.path.join(manager.directory, f"damaged-{step}")
    os.rename(source, target if not os.path.exists(target) else f"{target}-{os.getpid()}")
  _on_any_host(False)  # the others wait for the renaming
  manager.reload()


def _on_any_host(mine: bool) -> bool:
  """Whether it is so on any process of the run, which must all ask."""
  if jax.process_count() == 1:
    return mine
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.asarray(mine))))


def _first_line(error: Exception) -> str:
  return f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'})"
