"""Split one network's parameters into the part that adapts and the part that is shared, and merge them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from warpjax.types import PyTree

Path = tuple[Any, ...]
IsShared = Callable[[Path], bool]
"""`(path) -> bool`; `path` holds the keys from the root to a leaf, e.g. `("warp_0", "conv_0", "kernel")`."""

WARP_PREFIX = "warp"


def is_warp(path: Path) -> bool:
  """Whether any component of `path` is named `warp*` (lower case): the default split.

  Example:
    >>> is_warp(("warp_0", "kernel")), is_warp(("conv_0", "kernel"))
    (True, False)
  """
  return any(isinstance(key, str) and key.startswith(WARP_PREFIX) for key in path)


def split(params: PyTree, is_shared: IsShared = is_warp) -> tuple[PyTree, PyTree]:
  """Splits a nested dict in two by the path of each leaf.

  Args:
    params: A nested dict of arrays. Anything that is not a mapping is a leaf.
    is_shared: `(path) -> bool`; the leaves for which it is True go to `shared`.

  Returns:
    `(rest, shared)`: nested dicts with the same paths as in `params`; a side without leaves is `()`.

  Raises:
    ValueError: if `params` is not a nested dict.

  Example:
    >>> split({"conv": {"kernel": 1}, "warp_0": {"kernel": 2}})
    ({'conv': {'kernel': 1}}, {'warp_0': {'kernel': 2}})
  """
  if not isinstance(params, Mapping):
    raise ValueError(f"params must be a nested dict to be split by path, got {type(params).__name__}.")
  rest: dict[Path, Any] = {}
  shared: dict[Path, Any] = {}
  for path, leaf in _flatten(params, ()):
    (shared if is_shared(path) else rest)[path] = leaf
  return _unflatten(rest), _unflatten(shared)


def merge(rest: PyTree, shared: PyTree) -> PyTree:
  """Merges two nested dicts with disjoint paths: the inverse of `split`, in either order of arguments.

  Args:
    rest: A nested dict, or `()` for none.
    shared: A nested dict, or `()` for none.

  Returns:
    One nested dict with the leaves of both.

  Raises:
    ValueError: if a path is in both, or a leaf of one is a branch of the other.

  Example:
    >>> merge({"conv": {"kernel": 1}}, {"warp_0": {"kernel": 2}})
    {'conv': {'kernel': 1}, 'warp_0': {'kernel': 2}}
  """
  return _merge(_as_mapping(rest, "rest"), _as_mapping(shared, "shared"), ())


def _as_mapping(tree: PyTree, name: str) -> Mapping[Any, Any]:
  if isinstance(tree, Mapping):
    return tree
  if tree is None or (isinstance(tree, tuple) and not tree):
    return {}
  raise ValueError(f"{name} must be a nested dict or (), got {type(tree).__name__}.")


def _merge(left: Mapping[Any, Any], right: Mapping[Any, Any], path: Path) -> dict[Any, Any]:
  merged = {key: _copy(value) for key, value in left.items()}
  for key, value in right.items():
    if key not in merged:
      merged[key] = _copy(value)
    elif isinstance(merged[key], Mapping) and isinstance(value, Mapping):
      merged[key] = _merge(merged[key], value, (*path, key))
    else:
      raise ValueError(f"rest and shared overlap at {_show((*path, key))}; each leaf belongs to exactly one of them.")
  return merged


def _copy(tree: Any) -> Any:
  return {key: _copy(value) for key, value in tree.items()} if isinstance(tree, Mapping) else tree


def _flatten(tree: Mapping[Any, Any], path: Path) -> Iterator[tuple[Path, Any]]:
  for key, value in tree.items():
    # An empty branch is kept as a leaf, so that merge(split(x)) == x.
    if isinstance(value, Mapping) and value:
      yield from _flatten(value, (*path, key))
    else:
      yield (*path, key), value


def _unflatten(flat: Mapping[Path, Any]) -> PyTree:
  tree: dict[Any, Any] = {}
  for path, leaf in flat.items():
    node = tree
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = leaf
  return tree if tree else ()


def _show(path: Path) -> str:
  return "/".join(str(key) for key in path)
