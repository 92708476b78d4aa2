"""The product of dense layers, as a drop-in for `lax.dot_general`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from warpjax.checks import check_choice
from warpjax.networks import convolution
from warpjax.networks.conv import Products
from warpjax.networks.windows import Geometry

Numbers = tuple[tuple[Sequence[int], Sequence[int]], tuple[Sequence[int], Sequence[int]]]
"""`((lhs contracted, rhs contracted), (lhs batch, rhs batch))`."""


def dot_general(
  lhs: jax.Array,
  rhs: jax.Array,
  dimension_numbers: Numbers,
  precision: Any = None,
  preferred_element_type: Any = None,
  *,
  products: Products = "float32",
  **kwargs: Any,
) -> jax.Array:
  """Computes `lax.dot_general(...)`. With `products="bfloat16"`, the operands of a dense layer are rounded first.

  Args:
    lhs: `[..., inputs]` for a dense layer.
    rhs: Its kernel, `[inputs, outputs]`.
    dimension_numbers: As in `lax.dot_general`, like the next two arguments.
    precision: Precision of the product.
    preferred_element_type: Dtype of the result.
    products: "bfloat16" rounds float32 operands of products, in every derivative too, and sums them in float32.
      Products of other dtypes or of other axes than a dense layer's are passed to `lax.dot_general`.
    **kwargs: Further arguments of `lax.dot_general`.

  Returns:
    The product.

  Raises:
    ValueError: for an unknown `products`.

  Example:
    >>> import flax.linen as nn, functools
    >>> layer = nn.Dense(8, dot_general=functools.partial(dot_general, products="bfloat16"))
  """
  check_choice("products", products, Products)
  axes = [tuple(each) for pair in dimension_numbers for each in pair]
  is_dense = rhs.ndim == 2 and axes == [(lhs.ndim - 1,), (0,), (), ()]
  if products == "float32" or not is_dense or not lhs.dtype == rhs.dtype == jnp.float32:
    return lax.dot_general(lhs, rhs, dimension_numbers, precision, preferred_element_type, **kwargs)
  # A convolution of one image of one row of pixels, whose derivatives are rounded products too.
  size = (1, math.prod(lhs.shape[:-1]))
  geometry = Geometry(image=size, kernel=(1, 1), result=size, strides=(1, 1), low=(0, 0), dilation=(1, 1))
  image, kernel = lhs.reshape(1, *size, -1), rhs[None, None]
  out = convolution.convolve(image, kernel, geometry, rounded=True, precision=precision)
  return out.reshape(*lhs.shape[:-1], -1)
