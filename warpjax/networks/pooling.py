"""Max-pooling whose second derivative is cheap, and whose gradient no compilation loses."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax


def max_pool(x: jax.Array, size: int = 2, *, padding: str = "VALID") -> jax.Array:
  """Takes the maximum of each `size x size` window; windows do not overlap.

  A reshape and comparisons in place of XLA's window reduction, whose derivatives are slow on CPU. Value and derivatives
  equal those of `flax.linen.max_pool`: where elements tie, the first in row-major order takes the whole gradient. A NaN
  is passed on, and takes the gradient of its window.

  Args:
    x: `[batch, height, width, channels]`.
    size: Extent of a window, and the step between windows.
    padding: "VALID" drops what is left over at the low and right borders; "SAME" pads with minus infinity.

  Returns:
    `[batch, rows, columns, channels]`.

  Raises:
    ValueError: for an unknown `padding`, or if no window fits into the image.

  Example:
    >>> import jax.numpy as jnp
    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, :, :, 0].tolist()
    [[5.0, 7.0], [13.0, 15.0]]
  """
  if padding not in ("VALID", "SAME"):
    raise ValueError(f"padding must be 'VALID' or 'SAME', got {padding!r}.")
  if padding == "SAME":
    x = _pad_to_multiple(x, size)
  batch, height, width, channels = x.shape
  rows, columns = height // size, width // size
  if rows == 0 or columns == 0:
    raise ValueError(f"x must be at least {size} x {size} to be pooled, got {height} x {width} pixels.")
  windows = x[:, : rows * size, : columns * size].reshape(batch, rows, size, columns, size, channels)
  return _largest(windows)


@jax.custom_jvp
def _largest(windows: jax.Array) -> jax.Array:
  """`[batch, rows, size, columns, size, channels] -> [batch, rows, columns, channels]`."""
  return _first_largest(windows)[0]


@_largest.defjvp
def _largest_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
  # `jnp.max` compares each element with the maximum. XLA may compute the two in different fusions, which round
  # differently, so that no element equals it. A place that is an integer equals exactly one, in whichever fusion.
  (windows,), (tangent,) = primals, tangents
  place = _first_largest(windows)[1][:, :, None, :, None]
  size = windows.shape[2]
  row, column = (lax.broadcasted_iota(place.dtype, (size, 1, size, 1), axis) for axis in (0, 2))
  chosen = jnp.where(row * size + column == place, tangent, jnp.zeros((), tangent.dtype))
  return _largest(windows), jnp.sum(chosen, axis=(2, 4))


def _first_largest(windows: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest element of each window, and its place: `row * size + column`, as an integer."""
  size = windows.shape[2]
  places = [(row, column) for row in range(size) for column in range(size)]
  elements = [(windows[:, :, row, :, column], jnp.int32(row * size + column)) for row, column in places]
  return functools.reduce(_larger, elements)


def _larger(first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
  # A NaN on the left is kept by being unequal to itself; one on the right because no comparison with it holds.
  keep = (first[0] >= second[0]) | (first[0] != first[0])
  return jnp.where(keep, first[0], second[0]), jnp.where(keep, first[1], second[1])


def _pad_to_multiple(x: jax.Array, size: int) -> jax.Array:
  # As XLA's "SAME" does: both sides, the larger half last.
  height, width = ((-extent % size // 2, -(-(-extent % size) // 2), 0) for extent in x.shape[1:3])
  return lax.pad(x, jnp.array(-jnp.inf, x.dtype), [(0, 0, 0), height, width, (0, 0, 0)])
