"""A convolution that stays fast when every task has its own weights, as a drop-in for `lax.conv_general_dilated`.

Under `vmap`, `lax.conv_general_dilated` with per-task weights becomes a grouped convolution, which XLA runs badly on
CPU. Here the windows are copied out by strided slices (patches), and one matrix product does the rest, so that every
derivative, in forward mode, reverse mode or any mix of them, is again slices, pads and matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from warpjax.checks import check_choice

Lowering = Literal["auto", "patches", "lax"]
LOWERINGS: tuple[Lowering, ...] = get_args(Lowering)

AUTO_LOWERING = {"cpu": "patches"}
"""What `lowering="auto"` means on each backend; backends that are not listed keep `lax`.

Measured with `time_lowerings` (gradient, and gradient through one inner step, of a 64-filter convolution with per-task
weights). A backend belongs in this table when its `patches` were measured to be faster in both.
"""

_NHWC = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))

Ints = tuple[int, ...]


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision: Any = None,
  preferred_element_type: Any = None,
  *,
  lowering: Lowering = "auto",
  **kwargs: Any,
) -> jax.Array:
  """Computes `lax.conv_general_dilated(...)`, lowered so that per-task weights under `vmap` are fast.

  Two-dimensional NHWC/HWIO/NHWC convolutions with any strides, padding, `rhs_dilation` and feature groups can become
  patches and one matrix product. All others (`lhs_dilation`, batch groups, other layouts or ranks) are passed to `lax`.

  Args:
    lhs: Images, `[batch, height, width, channels]`.
    rhs: Kernel, `[height, width, channels / feature_group_count, features]`.
    window_strides: As in `lax.conv_general_dilated`, like all arguments up to `preferred_element_type`.
    padding: "SAME", "SAME_LOWER", "VALID", or `(low, high)` for each of height and width; negative numbers crop.
    lhs_dilation: Passed to `lax` unless all ones.
    rhs_dilation: Step between the taps of the kernel.
    dimension_numbers: As in `lax`; `None` means NCHW there, and is passed on.
    feature_group_count: Number of groups of channels.
    batch_group_count: Passed to `lax` unless one.
    precision: Of the matrix product or convolution.
    preferred_element_type: Of the result.
    lowering: "auto" (by backend, see `AUTO_LOWERING`), "patches" (where possible), or "lax".
    **kwargs: Further arguments of `lax.conv_general_dilated`; any makes this a call to `lax`.

  Returns:
    `[batch, rows, columns, features]`.

  Raises:
    ValueError: for an unknown `lowering`, or an argument that `lax.conv_general_dilated` refuses.

  Example:
    >>> import flax.linen as nn
    >>> layer = nn.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated)
  """
  check_choice("lowering", lowering, Lowering)
  options = dict(
    lhs_dilation=lhs_dilation,
    rhs_dilation=rhs_dilation,
    dimension_numbers=dimension_numbers,
    feature_group_count=feature_group_count,
    batch_group_count=batch_group_count,
    precision=precision,
    preferred_element_type=preferred_element_type,
    **kwargs,
  )
  reference = lambda x, w: lax.conv_general_dilated(x, w, window_strides, padding, **options)
  if (AUTO_LOWERING.get(_platform(), "lax") if lowering == "auto" else lowering) == "lax":
    return reference(lhs, rhs)
  out = jax.eval_shape(reference, lhs, rhs)  # lax checks every argument, so both lowerings refuse the same ones
  if not _is_plain(lhs, rhs, lhs_dilation, dimension_numbers, batch_group_count, kwargs) or 0 in out.shape:
    return reference(lhs, rhs)
  strides, dilation = tuple(window_strides), tuple(rhs_dilation or (1, 1))
  windows = _patches(_pad(lhs, rhs, strides, padding, dilation), rhs.shape[:2], out.shape[1:3], strides, dilation)
  product = _grouped_product(windows, rhs, feature_group_count, precision, preferred_element_type)
  return product.reshape(out.shape)


def _platform() -> str:
  device = getattr(jax.config, "jax_default_device", None)
  return getattr(device, "platform", device) or jax.default_backend()


def _is_plain(
  lhs: jax.Array, rhs: jax.Array, lhs_dilation: Sequence[int] | None, numbers: Any, batch_groups: int, kwargs: Any
) -> bool:
  if lhs.ndim != 4 or batch_groups != 1 or any(value is not None for value in kwargs.values()):
    return False
  if any(d != 1 for d in lhs_dilation or ()):
    return False
  return lax.conv_dimension_numbers(lhs.shape, rhs.shape, numbers) == _NHWC


def _pad(
  x: jax.Array, rhs: jax.Array, strides: Ints, padding: str | Sequence[tuple[int, int]], dilation: Ints
) -> jax.Array:
  if isinstance(padding, str):
    window = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
    padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
  return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])


def _patches(x: jax.Array, kernel: Ints, counts: Ints, strides: Ints, dilation: Ints) -> list[jax.Array]:
  """One strided slice of the padded image for each tap of the kernel: `taps x [batch, rows, columns, channels]`."""
  taps = [(row * dilation[0], column * dilation[1]) for row in range(kernel[0]) for column in range(kernel[1])]
  last = [(count - 1) * stride + 1 for count, stride in zip(counts, strides, strict=True)]
  return [
    lax.slice(x, (0, row, column, 0), (x.shape[0], row + last[0], column + last[1], x.shape[3]), (1, *strides, 1))
    for row, column in taps
  ]


def _grouped_product(
  taps: list[jax.Array], rhs: jax.Array, groups: int, precision: Any, preferred_element_type: Any
) -> jax.Array:
  channels, features = rhs.shape[2:]
  options = {"precision": precision, "preferred_element_type": preferred_element_type}
  if groups == 1:
    # Two axes each, because XLA transposes a product over three or more contracted axes slowly (1.5x on a gradient).
    patches = jnp.concatenate(taps, axis=-1).reshape(-1, len(taps) * channels)
    kernel = rhs.reshape(-1, features).T
    if patches.shape[1] >= features:
      # Keeps the kernel's gradient [features, inputs], as the product leaves it; XLA's other order takes twice as long.
      kernel = lax.optimization_barrier(kernel)
    return lax.dot_general(patches, kernel, (((1,), (1,)), ((), ())), **options)
  split = jnp.stack([tap.reshape(-1, groups, channels) for tap in taps], axis=2).reshape(
    -1, groups, len(taps) * channels
  )
  kernel = rhs.reshape(-1, groups, features // groups)
  product = lax.dot_general(split, kernel, (((2,), (0,)), ((1,), (1,))), **options)
  return jnp.moveaxis(product, 0, 1)
