"""The folder of one checkpoint, read only: its arrays, its record, and the digests that show damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.mistakes import short
from warpjax.numerics import is_typed_key, named_leaves
from warpjax.types import PyTree

STATE, RECORD = "state", "record"
_SHOWN = 3  # differences named in a message


def handlers() -> Any:
  """Orbax's handlers of the two items of a checkpoint, by name."""
  import orbax.checkpoint as ocp

  return ocp.handlers.create_default_handler_registry(
    **{
      # A folder for each leaf: orbax's packed format (OCDBT) leaks strings for each leaf saved (tensorstore 0.1.86).
      STATE: ocp.StandardCheckpointHandler(use_ocdbt=False),
      RECORD: ocp.JsonCheckpointHandler(),
    }
  )


def record_of(state: PyTree, extra: dict[str, Any]) -> dict[str, Any]:
  """The record that is saved with `state`, a tree of host arrays: digests of the whole and of each leaf."""
  leaves = {path: digest(leaf) for path, leaf in named_leaves(state)}
  return {"sha256": digest(state), "leaves": leaves, "extra": extra}


def read_record(folder: pathlib.Path) -> dict[str, Any]:
  """The record of a checkpoint."""
  return json.loads((folder / RECORD / "metadata").read_text(encoding="utf-8"))


def read(folder: pathlib.Path, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
  """The state of a checkpoint in the template's structure, dtypes and placement, and the extra of its record.

  Raises:
    ValueError: If the leaves do not have the SHA-256 that they were saved with.
    Exception: An exception of one of many types, if files are missing or cannot be read, or the template does not fit.
  """
  import orbax.checkpoint as ocp

  record, raw = read_record(folder), jax.tree.map(raw_key, template)
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, raw)
  with contextlib.closing(ocp.Checkpointer(ocp.StandardCheckpointHandler(use_ocdbt=False))) as checkpointer:
    state = checkpointer.restore(folder / STATE, args=ocp.args.StandardRestore(abstract))
  _check_digest("its leaves have", digest(state), record["sha256"])
  placed = jax.tree.map(_place_like, state, raw)
  return jax.tree.map(_as_key, placed, template), record["extra"]


def read_block(folder: pathlib.Path, name: str, template: PyTree | None = None) -> PyTree:
  """One field of a saved state, without reading the others.

  Args:
    folder: The folder of the checkpoint.
    name: The field.
    template: Its shapes and dtypes; None for those of the checkpoint, as dicts and lists.

  Returns:
    The field, on the default device, in the template's structure.

  Raises:
    ValueError: If the state has no such field, or a leaf does not have the SHA-256 that it was saved with.
    Exception: As `read` raises.
  """
  import orbax.checkpoint as ocp

  saved = _saved(folder)
  if not isinstance(saved, dict) or name not in saved:
    raise ValueError(f"the state that was saved has no field {name!r}")
  if template is not None and (differing := misfits(folder, template, name)):
    raise ValueError(f"it does not fit the template: {differing}")
  shapes = saved[name] if template is None else template
  like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)
  with contextlib.closing(ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False))) as checkpointer:
    args = ocp.args.PyTreeRestore(item={name: like}, partial_restore=True)
    tree = jax.tree.map(np.asarray, checkpointer.restore(folder / STATE, args=args)[name])
  expected = read_record(folder).get("leaves", {})  # checkpoints of older versions have none
  for path, leaf in named_leaves({name: tree}):
    _check_digest(f"{path} has", digest(leaf), expected.get(path, digest(leaf)))
  return jax.tree.map(jnp.asarray, tree)


def misfits(folder: pathlib.Path, template: PyTree, name: str | None = None) -> str:
  """How the shapes, dtypes and paths of a template differ from those of the checkpoint; "" if they do not.

  Args:
    folder: The folder of the checkpoint.
    template: A template of the whole state, or of the field `name`.
    name: A field of the state; None for the whole.

  Returns:
    The differences, as a text.
  """
  saved = _saved(folder)
  in_checkpoint = _described(saved if name is None else saved.get(name, {}))
  in_template = _described(template)
  differing = [
    f"{path or 'the state'} is {in_checkpoint.get(path, 'absent')} in the checkpoint and "
    f"{in_template.get(path, 'absent')} in the template"
    for path in sorted(in_checkpoint.keys() | in_template.keys())
    if in_checkpoint.get(path) != in_template.get(path)
  ]
  more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
  return "; ".join(differing[:_SHOWN]) + more


def identity(folder: pathlib.Path) -> tuple[int, int] | None:
  """An identity that changes when a folder is replaced; None if it does not exist. Checkpoints are renamed."""
  try:
    status = os.stat(folder)
  except FileNotFoundError:
    return None
  return status.st_ino, status.st_ctime_ns


def digest(tree: PyTree) -> str:
  """The SHA-256 of a pytree's leaves with their paths, dtypes and shapes, as hexadecimal digits."""
  result = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    array = np.asarray(raw_key(leaf))
    result.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
    result.update(np.ascontiguousarray(array).tobytes())
  return result.hexdigest()


def arrays(tree: PyTree, name: str) -> PyTree:
  """The tree with its Python numbers as arrays; raises a ValueError, with the path, for leaves without numbers."""

  def array(path: Any, leaf: Any) -> Any:
    with contextlib.suppress(TypeError):  # JAX has no type for it, such as for a text
      made = leaf if hasattr(leaf, "dtype") else np.asarray(leaf, jnp.result_type(leaf))
      if is_typed_key(made) or np.dtype(made.dtype).kind in "biufcV":  # V: bfloat16 and its like
        return made
    raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be an array or a number; got {short(leaf)}")

  return jax.tree_util.tree_map_with_path(array, tree)


def raw_key(leaf: Any) -> Any:
  """The numbers of a typed random key, or their shape and dtype; any other leaf unchanged."""
  if not is_typed_key(leaf):
    return leaf
  return jax.random.key_data(leaf) if isinstance(leaf, jax.Array) else jax.eval_shape(jax.random.key_data, leaf)


def _saved(folder: pathlib.Path) -> Any:
  """The tree of a checkpoint, each leaf its shape and dtype."""
  import orbax.checkpoint as ocp

  # The metadata of the handler: a Checkpointer also looks for a file that only it writes, and warns at each reading.
  with contextlib.closing(ocp.StandardCheckpointHandler(use_ocdbt=False)) as handler:
    return handler.metadata(folder / STATE).tree


def _described(tree: PyTree) -> dict[str, str]:
  raw = jax.tree.map(raw_key, tree)
  return {path: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for path, leaf in named_leaves(raw)}


def _check_digest(what: str, actual: str, expected: str) -> None:
  if actual != expected:
    raise ValueError(f"{what} SHA-256 {actual[:12]}, and was saved with {expected[:12]}")


def _as_key(leaf: jax.Array, like: Any) -> jax.Array:
  return (
    jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(jnp.empty((), like.dtype))) if is_typed_key(like) else leaf
  )


def _place_like(leaf: jax.Array, like: Any) -> jax.Array:
  """A restored array that can be moved between devices if the template can; orbax pins the arrays that it restores."""
  if not isinstance(like, jax.Array):
    return jnp.asarray(np.asarray(leaf))
  if not like.is_fully_addressable:
    return leaf
  if like.committed:
    return jax.device_put(leaf, like.sharding)
  return jnp.asarray(np.asarray(leaf))
