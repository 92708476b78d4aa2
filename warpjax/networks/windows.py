"""Convolutions and their gradients by windows: copies of the images under each tap of the kernel, and one product.

On a CPU the windows of one block of images at a time are copied, few enough that they stay in a core's cache. Memory
for the windows of all images would be many times that of the images, and take most of the time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

BLOCK_BYTES = 2**19
"""Bytes of the windows of a block: half of the second-level cache of a core on most machines."""

Ints = tuple[int, int]


class Geometry(NamedTuple):
  """Where the taps of a kernel meet the pixels of an image; pairs are `(height, width)`.

  Attributes:
    image: Extents of the images.
    kernel: Extents of the kernel.
    result: Extents of the result.
    strides: Pixels between windows.
    low: Pixels of zeros in front of the image; negative numbers crop.
    dilation: Pixels between the taps of the kernel.
  """

  image: Ints
  kernel: Ints
  result: Ints
  strides: Ints
  low: Ints
  dilation: Ints

  def high(self) -> Ints:
    """Pixels of zeros behind the part of the image that windows reach; negative numbers crop."""
    row, column = (
      (self.result[i] - 1) * self.strides[i] + (self.kernel[i] - 1) * self.dilation[i] + 1 - self.low[i] - self.image[i]
      for i in (0, 1)
    )
    return row, column

  def pads(self) -> list[tuple[int, int, int]]:
    """The `padding_config` of `lax.pad` for `[batch, height, width, channels]`."""
    return [(0, 0, 0), *((low, high, 0) for low, high in zip(self.low, self.high(), strict=True)), (0, 0, 0)]

  def taps(self) -> list[tuple[Ints, Ints]]:
    """For each tap, in row-major order, the start and the stop of its pixels in the padded image."""
    last = [(self.result[i] - 1) * self.strides[i] + 1 for i in (0, 1)]
    rows, columns = (range(0, self.kernel[i] * self.dilation[i], self.dilation[i]) for i in (0, 1))
    return [((row, column), (row + last[0], column + last[1])) for row in rows for column in columns]

  def transposed(self) -> Geometry:
    """The geometry of the gradient of images at strides of one, a convolution with the reversed kernel."""
    low = [(self.kernel[i] - 1) * self.dilation[i] - self.low[i] for i in (0, 1)]
    return self._replace(image=self.result, result=self.image, low=(low[0], low[1]))

  def multiplications(self, images: int, channels: int, features: int) -> int:
    """The number of multiplications in any of the three maps in `convolution.py`."""
    return images * channels * features * math.prod((*self.kernel, *self.result))


class Products(NamedTuple):
  """How products are computed.

  Attributes:
    precision: The `precision` of `lax.dot_general`.
    dtype: The dtype that operands are cast to, with products summed in float32; `None` leaves them unchanged.
  """

  precision: Any
  dtype: Any = None

  def dot(self, left: jax.Array, right: jax.Array, contracted: Ints) -> jax.Array:
    """The product of two matrices over an axis of each."""
    numbers = (((contracted[0],), (contracted[1],)), ((), ()))
    if self.dtype is None:
      return lax.dot_general(left, right, numbers, precision=self.precision)
    left, right = left.astype(self.dtype), right.astype(self.dtype)
    return lax.dot_general(left, right, numbers, preferred_element_type=jnp.float32)


def compute(
  left: jax.Array, right: jax.Array, *, of: str, geometry: Geometry, rounded: bool, precision: Any
) -> jax.Array:
  """One of the three maps of `convolution.py`, for one task or for operands with an axis of tasks in front."""
  one = functools.partial(_MAPS[of], geometry=geometry, products=Products(precision, jnp.bfloat16 if rounded else None))
  return one(left, right) if left.ndim == 4 else jax.vmap(one)(left, right)


def compute_in_blocks(left: jax.Array, right: jax.Array, *, of: str, geometry: Geometry, precision: Any) -> jax.Array:
  """As `compute`, one block of images after another, and one task after another if its windows are a large block."""
  images, each = left.shape[-4], _window_bytes(left, right, of, geometry)
  size = max(1, BLOCK_BYTES // each)
  one = functools.partial(_in_blocks, of=of, geometry=geometry, products=Products(precision), size=size)
  if left.ndim == 4:
    return one(left, right)
  if images * each < BLOCK_BYTES // 4:
    return jax.vmap(one)(left, right)
  return lax.map(lambda pair: one(*pair), (left, right))


def _window_bytes(left: jax.Array, right: jax.Array, of: str, geometry: Geometry) -> int:
  """Bytes of the windows of an image."""
  places, channels = geometry.result, left.shape[-1]
  if of == "x" and geometry.strides == (1, 1):
    places = geometry.image
  elif of == "x":
    channels = right.shape[-2]
  return max(1, math.prod((*geometry.kernel, *places, channels, left.dtype.itemsize)))


def _in_blocks(
  left: jax.Array, right: jax.Array, *, of: str, geometry: Geometry, products: Products, size: int
) -> jax.Array:
  one = functools.partial(_MAPS[of], geometry=geometry, products=products)
  images = left.shape[0]
  if images <= size:
    return one(left, right)
  size = -(-images // -(-images // size))  # blocks of one size, if that is possible
  whole = images // size
  block = lambda x, start: lax.dynamic_slice_in_dim(x, start, size)
  if of == "k":
    add = lambda i, total: total + one(block(left, i * size), block(right, i * size))
    total = lax.fori_loop(1, whole, add, one(left[:size], right[:size]))
    return total + one(left[whole * size :], right[whole * size :]) if images % size else total

  def write(i: jax.Array, out: jax.Array) -> jax.Array:
    start = jnp.minimum(i * size, images - size)  # the last block may begin inside of the one before
    return lax.dynamic_update_slice_in_dim(out, one(block(left, start), right), start, 0)

  shape = jax.eval_shape(one, left, right)
  return lax.fori_loop(0, -(-images // size), write, jnp.zeros(shape.shape, shape.dtype))


def _result(x: jax.Array, kernel: jax.Array, *, geometry: Geometry, products: Products) -> jax.Array:
  out = products.dot(_windows(x, geometry), kernel.reshape(-1, kernel.shape[-1]), (1, 0))
  return out.reshape(x.shape[0], *geometry.result, -1)


def _images(y: jax.Array, kernel: jax.Array, *, geometry: Geometry, products: Products) -> jax.Array:
  if geometry.strides == (1, 1):
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return _result(y, flipped, geometry=geometry.transposed(), products=products)
  copies = products.dot(y.reshape(-1, y.shape[-1]), kernel.reshape(-1, kernel.shape[-1]), (1, 1))
  return _add_windows(copies.reshape(*y.shape[:3], -1, kernel.shape[2]), geometry)


def _kernel(x: jax.Array, y: jax.Array, *, geometry: Geometry, products: Products) -> jax.Array:
  windows, outputs = _windows(x, geometry), y.reshape(-1, y.shape[-1])
  if windows.shape[1] < outputs.shape[1]:
    out = products.dot(windows, outputs, (0, 0))
  else:
    # As [features, inputs], which takes half the time of the other order. A barrier keeps XLA from changing it.
    out = lax.optimization_barrier(products.dot(outputs, windows, (0, 0))).T
  return out.reshape(*geometry.kernel, x.shape[-1], y.shape[-1])


_MAPS: dict[str, Callable[..., jax.Array]] = {"y": _result, "x": _images, "k": _kernel}


def _windows(x: jax.Array, geometry: Geometry) -> jax.Array:
  """`[batch, height, width, channels] -> [batch * rows * columns, taps * channels]`."""
  x = lax.pad(x, jnp.zeros((), x.dtype), geometry.pads())
  strides = (1, *geometry.strides, 1)
  taps = [lax.slice(x, (0, *first, 0), (len(x), *last, x.shape[3]), strides) for first, last in geometry.taps()]
  return jnp.concatenate(taps, axis=-1).reshape(-1, len(taps) * x.shape[3])


def _add_windows(copies: jax.Array, geometry: Geometry) -> jax.Array:
  """`[batch, rows, columns, taps, channels] -> [batch, height, width, channels]`, the transpose of `_windows`."""
  zero = jnp.zeros((), copies.dtype)
  padded = [sum(sizes) for sizes in zip(geometry.low, geometry.image, geometry.high(), strict=True)]
  total: Any = zero
  for tap, (first, last) in enumerate(geometry.taps()):
    spread = [(first[i], padded[i] - last[i], geometry.strides[i] - 1) for i in (0, 1)]
    total = total + lax.pad(copies[:, :, :, tap], zero, [(0, 0, 0), *spread, (0, 0, 0)])
  return lax.pad(total, zero, [(-low, -high, 0) for low, high, _ in geometry.pads()])
