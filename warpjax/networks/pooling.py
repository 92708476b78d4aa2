"""Max-pooling whose second derivative is cheap, and whose gradient no compilation loses."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from warpjax.checks import check_choice, check_count


def max_pool(x: jax.Array, size: int = 2, *, padding: str = "VALID") -> jax.Array:
  """Takes the maximum of each `size x size` window; windows do not overlap.

  A reshape and comparisons instead of XLA's window reduction, whose derivatives are slow on CPU. Value and derivatives
  equal those of `flax.linen.max_pool`: if elements tie, the first in row-major order takes the whole gradient. A NaN
  is passed on, and takes the gradient of its window.

  Args:
    x: `[batch, height, width, channels]`.
    size: Extent of a window, and the step between windows.
    padding: "VALID" drops incomplete windows at the low and right borders; "SAME" pads with minus infinity.

  Returns:
    `[batch, rows, columns, channels]`.

  Raises:
    ValueError: for an unknown `padding`, a `size` that is not an integer of at least 1, an `x` that is not
      floating-point, or an image without room for a window.

  Example:
    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
  """
  check_choice("padding", padding, ("VALID", "SAME"))
  check_count("size", size)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"x must be floating-point to be pooled; got {x.dtype}.")
  if padding == "SAME":
    x = _pad_to_multiple(x, size)
  batch, height, width, channels = x.shape
  rows, columns = height // size, width // size
  if rows == 0 or columns == 0:
    raise ValueError(f"x must be at least {size} x {size} to be pooled, got {height} x {width} pixels.")
  windows = x[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
  return _first_largest(windows)[0]


@jax.custom_jvp
def _first_largest(windows: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest element of each window, and its place: `row * size + column`, as an integer.

  `[batch, rows, size, columns, size, channels] -> 2 x [batch, rows, columns, channels]`.
  """
  size = windows.shape[2]
  columns = [windows[:, :, :, :, column] for column in range(size)]
  elements, column = functools.reduce(_larger, [(x, jnp.full(x.shape, i, jnp.int32)) for i, x in enumerate(columns)])
  place = lax.broadcasted_iota(jnp.int32, column.shape, 2) * size + column
  lowest = jnp.array(-jnp.inf, windows.dtype)
  # A reduction, which XLA does not fuse into what reads the place: there it would run again for every element.
  return tuple(lax.reduce((elements, place), (lowest, jnp.int32(0)), _larger, (2,)))


@_first_largest.defjvp
def _first_largest_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[tuple, tuple]:
  # `jnp.max` compares each element with the maximum. XLA may compute the two in different fusions, which round
  # differently, so that no element equals it. A place that is an integer equals exactly one, in whichever fusion.
  (windows,), (tangent,) = primals, tangents
  largest, place = _first_largest(windows)
  size = windows.shape[2]
  row, column = (lax.broadcasted_iota(place.dtype, (size, 1, size, 1), axis) for axis in (0, 2))
  at_place = row * size + column == place[:, :, None, :, None]
  chosen = jnp.sum(jnp.where(at_place, tangent, jnp.zeros((), tangent.dtype)), axis=(2, 4))
  return (largest, place), (chosen, np.zeros(place.shape, jax.dtypes.float0))


def _larger(first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
  """The larger of two elements with their places, of equals the one that comes first; a NaN is larger than numbers."""
  (x, x_place), (y, y_place) = first, second
  keep = (x > y) | (x != x) | ((x == y) & (x_place < y_place))
  return jnp.where(keep, x, y), jnp.where(keep, x_place, y_place)


def _pad_to_multiple(x: jax.Array, size: int) -> jax.Array:
  # As XLA's "SAME" does: both sides, the larger half last.
  height, width = ((-extent % size // 2, -(-(-extent % size) // 2), 0) for extent in x.shape[1:3])
  return lax.pad(x, jnp.array(-jnp.inf, x.dtype), [(0, 0, 0), height, width, (0, 0, 0)])
