"""Choices that data can name: a field of a module takes the name, or the function itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.checks import check_choice

Function = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., jax.Array]
T = TypeVar("T")

Activation = Literal["relu", "tanh"]
HeadInit = Literal["normal", "xavier"]
Norm = Literal["batch", "group", "layer"]
# The dtype of computations; parameters, batch statistics, losses and sums over tasks stay in single precision.
Dtype = Literal["float32", "bfloat16"] | jnp.dtype | type
ParamDtype = jnp.dtype | type

ACTIVATIONS: dict[str, Function] = {"relu": nn.relu, "tanh": jnp.tanh}
HEAD_INITS: dict[str, Initializer] = {
  "normal": nn.initializers.normal(1.0),
  "xavier": nn.initializers.xavier_uniform(),
}


def chosen(argument: str, choice: str | T, allowed: Mapping[str, T]) -> T:
  """The function of that name, or the function itself.

  Raises:
    ValueError: for a name that is not among `allowed`.

  Example:
    >>> chosen("activation", "tanh", ACTIVATIONS) is chosen("activation", jnp.tanh, ACTIVATIONS)
    True
  """
  if not isinstance(choice, str):
    return choice
  check_choice(argument, choice, allowed)
  return allowed[choice]
