"""Checks of arguments that several rules have."""

from __future__ import annotations

import numbers
from typing import Any

import jax
import numpy as np


def check_learning_rate(learning_rate: Any) -> None:
  """Raises a ValueError unless `learning_rate` is positive and finite, an array, or a schedule."""
  if callable(learning_rate) or isinstance(learning_rate, (jax.Array, np.ndarray)):
    return
  number = isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool)
  if not number or not 0 < learning_rate < float("inf"):
    raise ValueError(f"learning_rate must be a positive number or an optax schedule; got {learning_rate!r}")
