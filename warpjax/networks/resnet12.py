"""ResNet-12, the deeper network of few-shot learning, with drop-block and warp-layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.checks import check_counts, check_widths
from warpjax.mistakes import check_floating
from warpjax.networks import conv, pooling
from warpjax.networks.by_name import Dtype, Initializer, Norm, ParamDtype
from warpjax.networks.norm import norm_layer
from warpjax.networks.warp import Warp, WarpSpec, check, warp_head

_SLOPE = 0.1


class ResNet12(nn.Module):
  """Four residual blocks of three 3x3 convolutions, each pooled by two, a mean over space, a linear head.

  It drops activations where flax's stream "dropout" is there: `from_linen(module, takes_key=True)` gives it one for an
  input `(images, key data)`, as `tasks.augment.keyed` makes.

  Attributes:
    num_classes: Number of outputs.
    widths: Filters of the blocks.
    drop_rate: Share of activations to drop: single ones after the first two blocks, squares after the others.
    block_size: Side of those squares, at most the side of the image there.
    norm: "batch", "group" or "layer".
    norm_groups: Groups of channels for "group".
    norm_epsilon: Added to the variance.
    kernel_init: Initializer of convolutions.
    warp: Warp-layers after each block, named `warp_0` to `warp_3`; `None` for none.
    conv_general_dilated: The convolution; a drop-in for `jax.lax.conv_general_dilated`.
    dtype: Compute dtype; default: that of input and parameters.
    param_dtype: Dtype of the parameters; `float` is the default float of JAX.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = ResNet12(num_classes=5, widths=(4, 4, 4, 4))
    >>> logits, _ = jax.jit(network.init_with_output)(jax.random.key(0), jnp.ones((2, 32, 32, 3)))
    >>> logits.shape
    (2, 5)

  Reference: Lee, Maji, Ravichandran, Soatto 2019, arXiv 1904.03758; Ghiasi, Lin, Le 2018, arXiv 1810.12890.
  """

  num_classes: int = 5
  widths: Sequence[int] = (64, 160, 320, 640)
  drop_rate: float = 0.0
  block_size: int = 5
  norm: Norm = "batch"
  norm_groups: int = 8
  norm_epsilon: float = 1e-5
  kernel_init: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
  warp: WarpSpec | None = None
  conv_general_dilated: Callable[..., jax.Array] = conv.conv_general_dilated
  dtype: Dtype | None = None
  param_dtype: ParamDtype = float

  @nn.compact
  def __call__(self, x: jax.Array, *, use_running_average: bool = False) -> jax.Array:
    """`[batch, height, width, channels] -> [batch, num_classes]`."""
    self._check(x)
    for i, width in enumerate(self.widths):
      x = self._block(i, width, x, use_running_average)
      if self.drop_rate and self.has_rng("dropout"):
        x = drop(self.make_rng("dropout"), x, self.drop_rate, self.block_size if i >= 2 else 1)
      if self.warp is not None:
        named = {"name": f"warp_{i}", **self._dtypes()}
        x = Warp(self.warp, self.conv_general_dilated, self.norm_epsilon, **named)(
          x, use_running_average=use_running_average
        )
    x = jnp.mean(x, axis=(1, 2))
    if self.warp is not None and self.warp.head:
      x = nn.Dense(x.shape[-1], name="head", **self._dtypes())(x)
      return warp_head(self.warp, self.num_classes, x.shape[-1], **self._dtypes())(x)
    return nn.Dense(self.num_classes, name="head", **self._dtypes())(x)

  def _block(self, index: int, width: int, x: jax.Array, use_running_average: bool) -> jax.Array:
    norm = lambda suffix, y: norm_layer(
      self.norm,
      use_running_average=use_running_average,
      epsilon=self.norm_epsilon,
      use_scale=True,
      groups=self.norm_groups,
      name=f"norm_{index}_{suffix}",
      **self._dtypes(),
    )(y)
    h = x
    for i in range(3):
      h = norm(i, self._conv(width, 3, f"conv_{index}_{i}")(h))
      h = nn.leaky_relu(h, _SLOPE) if i < 2 else h
    h = h + norm("skip", self._conv(width, 1, f"skip_{index}")(x))
    return pooling.max_pool(nn.leaky_relu(h, _SLOPE))

  def _conv(self, width: int, size: int, name: str) -> nn.Conv:
    return nn.Conv(
      width,
      (size, size),
      use_bias=False,
      kernel_init=self.kernel_init,
      conv_general_dilated=self.conv_general_dilated,
      name=name,
      **self._dtypes(),
    )

  def _dtypes(self) -> dict[str, Any]:
    return {"dtype": self.dtype, "param_dtype": self.param_dtype}

  def _check(self, x: jax.Array) -> None:
    if x.ndim != 4:
      raise ValueError(f"x must be [batch, height, width, channels], got shape {x.shape}.")
    check_floating(x)
    check_widths(widths=self.widths)
    check_counts(num_classes=self.num_classes, block_size=self.block_size, norm_groups=self.norm_groups)
    if not 0 <= self.drop_rate < 1:
      raise ValueError(f"drop_rate must be at least 0 and below 1, got {self.drop_rate}.")
    if self.warp is not None:
      check(self.warp)


def drop(key: jax.Array, x: jax.Array, rate: float, block_size: int = 1) -> jax.Array:
  """Drop-block: squares of each channel set to zero, the rest scaled so that the mean of a mask of ones stays one.

  At each place where a square fits, one starts with probability `rate / block_size^2 * area / places`. With a
  `block_size` of 1 this is dropout.

  Args:
    key: A random key.
    x: `[batch, height, width, channels]`.
    rate: The share to drop, about: squares overlap.
    block_size: Side of a square, cut to the image's.

  Returns:
    `x` with squares dropped.

  Reference: Ghiasi, Lin, Le 2018, arXiv 1810.12890, algorithm 1.
  """
  height, width = x.shape[1:3]
  size = min(block_size, height, width)
  places = (height - size + 1) * (width - size + 1)
  chance = min(1.0, rate / size**2 * height * width / places)
  starts = jax.random.bernoulli(key, chance, (x.shape[0], height - size + 1, width - size + 1, x.shape[3]))
  padding = [(0, 0), (size - 1, size - 1), (size - 1, size - 1), (0, 0)]
  dropped = jax.lax.reduce_window(
    jnp.pad(starts, padding).astype(x.dtype), jnp.zeros((), x.dtype), jax.lax.max, (1, size, size, 1), (1,) * 4, "VALID"
  )
  kept = 1 - dropped
  return x * kept / jnp.maximum(jnp.mean(kept), 1 / kept.size).astype(x.dtype)
