"""Config files as tables: what an experiment's methods share, and one row for each method."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from ml_collections import config_dict

from experiments import builders, experiment, schema, warp

Table = Mapping[str, Any]


def select(name: str, common: Table, methods: Mapping[str, Table], method: str) -> ml_collections.ConfigDict:
  """The config of one method: its row over the common settings, completed by every other setting's default.

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
  complete = {**_defaults(experiment.Run), **{key: _complete(key, value) for key, value in merged.items()}}
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


def _complete(key: str, value: Any) -> Any:
  """A table with the defaults that its readers have, so that each can be overridden on the command line."""
  if not isinstance(value, Mapping) or key == "published":
    return value
  readers = [experiment.Evaluation] if key == "eval" else builders.readers(key, value)
  table = {name: default for reader in readers for name, default in _defaults(reader).items()} | dict(value)
  return {**table, "warp": _defaults(warp.layers) | dict(table["warp"])} if "warp" in table else table


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
  hints = typing.get_type_hints(function)
  parameters = inspect.signature(function).parameters.items()
  return {name: _overridable(p.default, hints.get(name)) for name, p in parameters if p.default is not p.empty}


def _overridable(default: Any, hint: Any) -> Any:
  if default is not None:
    return default
  return config_dict.placeholder(next(kind for kind in typing.get_args(hint) if kind is not type(None)))
