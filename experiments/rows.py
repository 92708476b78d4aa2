"""Config files as tables: what an experiment's methods share, and one row for each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments import schema

Table = Mapping[str, Any]


def select(experiment: str, common: Table, methods: Mapping[str, Table], method: str) -> ml_collections.ConfigDict:
  """The config of one method: its row over the common settings.

  A table of the row that says what it is, by `name` or `rule`, takes the place of the common one, whose settings
  belong to another thing; any other is laid over it.

  Args:
    experiment: The config file's name.
    common: What every method shares.
    methods: One row for each method; an entry that is a table is laid over the common table of that name.
    method: Which row.

  Returns:
    A config that the command line can override.

  Raises:
    ValueError: For a method that is not there, naming the nearest.

  Example:
    >>> config = select("sines", {"inner": {"num_steps": 1}}, {"maml": {"inner": {"learning_rate": 0.1}}}, "maml")
    >>> config.inner.to_dict()
    {'learning_rate': 0.1, 'num_steps': 1}
  """
  row = schema.choose(f"configs/{experiment}.py", method, methods)
  merged: dict[str, Any] = {"experiment": experiment, "method": method, **common}
  for key, value in row.items():
    lay_over = isinstance(value, Mapping) and not {"name", "rule"} & value.keys()
    merged[key] = {**merged.get(key, {}), **value} if lay_over else value
  return ml_collections.ConfigDict(merged, convert_dict=True)
