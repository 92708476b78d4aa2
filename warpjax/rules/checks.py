"""Checks of arguments that several rules have."""

from __future__ import annotations

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.types import Params


def check_learning_rate(learning_rate: Any) -> None:
  """Raises a ValueError unless `learning_rate` is positive and finite, an array, or a schedule."""
  if callable(learning_rate) or isinstance(learning_rate, (jax.Array, np.ndarray)):
    return
  number = isinstance(learning_rate, numbers.Real) and not isinstance(learning_rate, bool)
  if not number or not 0 < learning_rate < float("inf"):
    raise ValueError(f"learning_rate must be a positive number or an optax schedule; got {learning_rate!r}")


def check_real(name: str, params: Params) -> None:
  """Raises a ValueError that names the rule for complex parameters, of whose sign and logarithm it makes its inputs."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if jnp.iscomplexobj(leaf):
      raise ValueError(f"{name} takes real parameters; got {leaf.dtype} at params{jax.tree_util.keystr(path)}")
