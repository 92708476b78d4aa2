"""A convolution that stays fast when every task has its own weights, as a drop-in for `lax.conv_general_dilated`.

Under `vmap`, `lax.conv_general_dilated` with per-task weights becomes a grouped convolution, which XLA runs badly on
CPU. Here it becomes a primitive whose derivatives, in forward mode, reverse mode or any mix of them, are convolutions
of the same kind, and whose programs are chosen for the backend (`convolution.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

from warpjax.checks import check_choice
from warpjax.networks import convolution, windows

Lowering = Literal["auto", "patches", "lax"]
Products = Literal["float32", "bfloat16"]
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
  products: Products = "float32",
  **kwargs: Any,
) -> jax.Array:
  """Computes `lax.conv_general_dilated(...)`, lowered so that per-task weights under `vmap` are fast.

  This is for two-dimensional NHWC/HWIO/NHWC convolutions with any strides, padding, `rhs_dilation` and feature groups.
  All others (`lhs_dilation`, batch groups, other layouts or ranks) are passed to `lax`.

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
    precision: Precision of the matrix product or convolution.
    preferred_element_type: Dtype of the result.
    lowering: "auto" (by backend, see `AUTO_LOWERING`), "patches" (C++ on a CPU, otherwise copies of the patches under
      the kernel and one matrix product), or "lax".
    products: "bfloat16" rounds float32 operands of products, in every derivative too, and sums them in float32. These
      convolutions are patches on every backend.
    **kwargs: Further arguments of `lax.conv_general_dilated`; any makes this a call to `lax`.

  Returns:
    `[batch, rows, columns, features]`.

  Raises:
    ValueError: for an unknown `lowering` or `products`, or an argument that `lax.conv_general_dilated` refuses.

  Example:
    >>> import flax.linen as nn
    >>> layer = nn.Conv(8, (3, 3), conv_general_dilated=conv_general_dilated)
  """
  check_choice("lowering", lowering, Lowering)
  check_choice("products", products, Products)
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
  rounded = products == "bfloat16" and lhs.dtype == rhs.dtype == jnp.float32
  if not rounded and (AUTO_LOWERING.get(_platform(), "lax") if lowering == "auto" else lowering) == "lax":
    return reference(lhs, rhs)
  out = jax.eval_shape(reference, lhs, rhs)  # lax checks every argument, so both lowerings refuse the same ones
  if not _is_plain(lhs, rhs, lhs_dilation, dimension_numbers, batch_group_count, kwargs) or 0 in out.shape:
    return reference(lhs, rhs)
  if dtype := preferred_element_type:
    lhs, rhs = lhs.astype(dtype), rhs.astype(dtype)
  geometry = _geometry(lhs, rhs, out.shape, window_strides, padding, rhs_dilation)
  product = functools.partial(convolution.convolve, geometry=geometry, rounded=rounded, precision=precision)
  return product(lhs, rhs) if feature_group_count == 1 else _grouped(product, lhs, rhs, feature_group_count)


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


def _geometry(lhs: jax.Array, rhs: jax.Array, out: Ints, strides: Any, padding: Any, dilation: Any) -> windows.Geometry:
  pair = lambda values: (int(values[0]), int(values[1]))
  dilation = pair(dilation or (1, 1))
  if isinstance(padding, str):
    extents = [(taps - 1) * step + 1 for taps, step in zip(rhs.shape[:2], dilation, strict=True)]
    padding = lax.padtype_to_pads(lhs.shape[1:3], extents, strides, padding)
  low = pair([low for low, _ in padding])
  return windows.Geometry(pair(lhs.shape[1:3]), pair(rhs.shape[:2]), pair(out[1:3]), pair(strides), low, dilation)


def _grouped(product: Any, lhs: jax.Array, rhs: jax.Array, groups: int) -> jax.Array:
  """A convolution for each group of channels, as for tasks."""
  lhs = lhs.reshape(*lhs.shape[:3], groups, -1)
  rhs = rhs.reshape(*rhs.shape[:3], groups, -1)
  out = jax.vmap(product, in_axes=(3, 3), out_axes=3)(lhs, rhs)
  return out.reshape(*out.shape[:3], -1)
