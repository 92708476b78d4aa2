"""Checks of arguments that more than one layer has."""

from __future__ import annotations

import numbers
from typing import Any

from warpjax.types import UpdateRule


def check_count(name: str, value: Any) -> None:
  """Raises a ValueError unless `value` is an integer of at least 1."""
  if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
    raise ValueError(f"{name} must be an integer of at least 1; got {value!r}")


def is_number(value: Any) -> bool:
  """Whether `value` is a number, of Python or NumPy, whose range can be checked; an array may be traced."""
  return isinstance(value, numbers.Real)


def check_task_chunk(task_chunk: int | None) -> None:
  """Raises a ValueError for a number of tasks side by side below 1; None leaves the choice."""
  if task_chunk is not None and task_chunk < 1:
    raise ValueError(f"task_chunk must be None or at least 1; got {task_chunk!r}")


def check_differentiable(estimator: str, rule: UpdateRule, instead: str = "another rule") -> None:
  """Raises a ValueError that names the rule where its steps have no derivative."""
  if not rule.differentiable:
    raise ValueError(
      f"{estimator} cannot differentiate the rule {rule.name!r} (a line search or the like); use {instead}"
    )
