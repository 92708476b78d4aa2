"""Config files as tables: what an experiment's methods share, and one row for each method."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from warpjax.runner import experiment, registry, schema
from warpjax.runner.components import warp

Table = Mapping[str, Any]


def select(name: str, common: Table, methods: Mapping[str, Table], method: str) -> ml_collections.ConfigDict:
  """The config of one method: its row over the common settings, with a place for every other setting there is.

  A setting that nobody gives is None here and left to its default.

  Args:
    name: The config file's name.
    common: What every method shares.
    methods: One row for each method; an entry that is a table is laid over the common table of that name.
    method: Which row.

  Returns:
    A config that the command line can override.

  Raises:
    ValueError: For a method that is not there, naming the nearest.

  Example:
    >>> common = {"inner": {"rule": "sgd", "learning_rate": 0.1, "num_steps": 1}}
    >>> config = select("sines", common, {"maml": {"inner": {"num_steps": 5}}}, "maml")
    >>> config.inner.num_steps, config.inner.learning_rate, config.inner.momentum
    (5, 0.1, None)
  """
  row = schema.choose(f"configs/{name}.py", method, methods)
  merged = {"experiment": name, "method": method, **lay_over(common, row)}
  complete = {**_places(experiment.Run), **{key: _complete(key, value) for key, value in merged.items()}}
  return ml_collections.ConfigDict(complete, convert_dict=True)


def lay_over(base: Table, row: Table) -> dict[str, Any]:
  """`row` over `base`.

  A table of the row that says what it is, by `name` or `rule`, takes the place of the base's, whose settings belong to
  another thing; any other is laid over it, setting by setting.
  """
  merged = dict(base)
  for key, value in row.items():
    lay = isinstance(value, Mapping) and not {"name", "rule"} & value.keys()
    merged[key] = {**merged.get(key, {}), **value} if lay else value
  return merged


def resized(methods: Mapping[str, Table], recipes: Mapping[str, Table], suffix: str = "_cpu") -> dict[str, Table]:
  """A further row for each recipe: the method of that name with the recipe over it."""
  return {f"{name}{suffix}": lay_over(methods[name], recipe) for name, recipe in recipes.items()}


def unpublished(row: Table) -> dict[str, Any]:
  """A row without its paper's number, for settings that the paper does not have."""
  return {key: value for key, value in row.items() if key != "published"}


def _complete(key: str, value: Any) -> Any:
  """A table with a place for every other setting that its readers have, to be given on the command line."""
  if not isinstance(value, Mapping) or key == "published":
    return value
  readers = [experiment.Evaluation] if key == "eval" else registry.readers(key, value)
  table = {name: place for reader in readers for name, place in _places(reader).items()} | dict(value)
  return {**table, "warp": _places(warp.layers) | dict(value.get("warp", {}))} if "warp" in table else table


def _places(function: Callable[..., Any]) -> dict[str, Any]:
  hints = typing.get_type_hints(function)
  parameters = inspect.signature(function).parameters.items()
  return {name: config_dict.placeholder(_kind(hints[name])) for name, p in parameters if p.default is not p.empty}


def _kind(hint: Any) -> type:
  """The type that the command line reads a setting as."""
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    return type(args[0])
  if origin in (typing.Union, types.UnionType):
    return _kind(args[0])
  return tuple if origin in (tuple, list, collections.abc.Sequence) else hint
