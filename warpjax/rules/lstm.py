"""The LSTM that learned update rules run on every coordinate: one set of weights, a state for each coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from warpjax.types import PyTree

Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]


class CellState(NamedTuple):
  """An LSTM's memory of every coordinate: `hidden` and `cell`, each `[num_coordinates, units]`."""

  hidden: jax.Array
  cell: jax.Array


def init_weights(key: jax.Array, num_inputs: int, units: int, draw: Draw) -> dict[str, jax.Array]:
  """`kernel [num_inputs + units, 4 * units]` and `bias [4 * units]` of an LSTM, both by `draw(key, shape)`."""
  kernel_key, bias_key = jax.random.split(key)
  return {"kernel": draw(kernel_key, (num_inputs + units, 4 * units)), "bias": draw(bias_key, (4 * units,))}


def zero_state(num_coordinates: int, units: int, dtype: Any) -> CellState:
  """The state before the first step."""
  return CellState(*[jnp.zeros((num_coordinates, units), dtype)] * 2)


def advance(weights: PyTree, state: CellState, inputs: jax.Array) -> CellState:
  """One step: `c = s(f) c + s(i) tanh(g)`, `h = s(o) tanh(c)`, where `(i, f, g, o) = [inputs, h] W + b`.

  Args:
    weights: From `init_weights`.
    state: The state of every coordinate.
    inputs: `[num_coordinates, num_inputs]`.

  Returns:
    The next state; its `hidden` is the output.
  """
  gates = jnp.concatenate([inputs, state.hidden], axis=-1) @ weights["kernel"] + weights["bias"][None]
  write, keep, new, read = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(keep) * state.cell + jax.nn.sigmoid(write) * jnp.tanh(new)
  return CellState(jax.nn.sigmoid(read) * jnp.tanh(cell), cell)


def log_and_sign(x: jax.Array, p: float) -> jax.Array:
  """`(log|x| / p, sign x)` where `|x| >= e^-p`, else `(-1, e^p x)`: gradients of all sizes at one scale.

  Args:
    x: `[num_coordinates]`.
    p: Numbers below `e^-p` in size count as small.

  Returns:
    `[num_coordinates, 2]`.

  Example:
    >>> log_and_sign(jnp.array([1.0, -1.0, 0.0]), 10.0).tolist()
    [[0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]]

  Reference:
    Andrychowicz et al. 2016, arXiv 1606.04474, appendix A.
  """
  small = jnp.abs(x) < math.exp(-p)
  safe = jnp.where(small, 1.0, x)  # the logarithm has no derivative at 0, and masking would not remove its NaN
  return jnp.stack(
    [jnp.where(small, -1.0, jnp.log(jnp.abs(safe)) / p), jnp.where(small, math.exp(p) * x, jnp.sign(x))], -1
  )
