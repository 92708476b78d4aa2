"""Checks of arguments that several estimators share."""

from __future__ import annotations


def check_count(name: str, value: int) -> None:
  """Raises a ValueError unless `value` is an integer of at least 1."""
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise ValueError(f"{name} must be an integer of at least 1; got {value!r}")


def check_differentiable(estimator: str, rule_name: str, differentiable: bool) -> None:
  """Raises a ValueError for a rule whose step has no derivative."""
  if not differentiable:
    raise ValueError(
      f"{estimator} cannot differentiate a step of the rule {rule_name!r} (a line search or the like); use another rule"
    )
