"""The four-block convolutional learner of few-shot learning, in any paper's order of layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.checks import check_choice, check_counts, check_widths
from warpjax.mistakes import check_floating
from warpjax.networks import conv, pooling
from warpjax.networks.by_name import HEAD_INITS, Dtype, HeadInit, Initializer, Norm, ParamDtype, chosen
from warpjax.networks.initializers import BiasInit, bias_initializer
from warpjax.networks.norm import norm_layer
from warpjax.networks.warp import Warp, WarpSpec, check, warp_head

Layer = Literal["conv", "norm", "relu", "leaky_relu", "pool"]
Readout = Literal["mean", "flatten"]
LAYERS = get_args(Layer)


class Conv4(nn.Module):
  """Four convolutional blocks and a linear head; the default is MAML's Omniglot network.

  A block is 3x3 convolution, batch norm, ReLU and 2x2 max-pooling in the order of `layers`. Batch norm uses the
  statistics of the batch it sees, so the network is a pure function of its parameters and input.

  Attributes:
    num_classes: Number of outputs.
    width: Filters in each convolution.
    layers: The order of a block, out of "conv", "norm", "relu", "leaky_relu" (slope 0.01), "pool".
    strides: Strides of each convolution.
    padding: Padding of each convolution: "SAME", "VALID", or pixels on each side.
    pool_padding: "VALID" drops an odd last row, "SAME" keeps it.
    readout: "mean" over space, or "flatten".
    hidden: Widths of fully connected layers, each with a ReLU, between read-out and head.
    num_blocks: Number of blocks.
    conv_bias: Whether convolutions have a bias. In front of a batch norm its true gradient is zero.
    norm_scale: Whether batch norm has a scale (gamma) in addition to its bias (beta).
    norm_epsilon: Added to the variance.
    norm: "batch"; or, over one example at a time, "group" or "layer".
    norm_groups: Groups of channels for "group".
    kernel_init: Initializer of convolutions and fully connected layers.
    bias_init: From a layer's fan-in to the initializer of its bias, batch norm excepted; `None` for zeros.
    head_init: Initializer of the head's kernel: "normal" (deviation 1), "xavier" (uniform), or a function; `None` for
      `kernel_init`.
    warp: Warp-layers after each block, named `warp_0` to `warp_3`; `None` for none.
    conv_general_dilated: The convolution; a drop-in for `jax.lax.conv_general_dilated`.
    dtype: Compute dtype; default: that of input and parameters.
    param_dtype: Dtype of the parameters; `float` is the default float of JAX.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = Conv4(num_classes=5, width=8)
    >>> logits, _ = jax.jit(network.init_with_output)(jax.random.key(0), jnp.ones((10, 28, 28, 1)))
    >>> logits.shape
    (10, 5)

  Reference: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2, and its released code.
  """

  num_classes: int = 5
  width: int = 64
  layers: Sequence[Layer] = ("conv", "norm", "relu")
  strides: int = 2
  padding: str | int = "SAME"
  pool_padding: str = "VALID"
  readout: Readout = "mean"
  hidden: Sequence[int] = ()
  num_blocks: int = 4
  conv_bias: bool = False
  norm_scale: bool = False
  norm_epsilon: float = 1e-3
  norm: Norm = "batch"
  norm_groups: int = 8
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  bias_init: BiasInit | None = None
  head_init: HeadInit | Initializer | None = "normal"
  warp: WarpSpec | None = None
  conv_general_dilated: Callable[..., jax.Array] = conv.conv_general_dilated
  dtype: Dtype | None = None
  param_dtype: ParamDtype = float

  @nn.compact
  def __call__(self, x: jax.Array, *, use_running_average: bool = False) -> jax.Array:
    """`[batch, height, width, channels] -> [batch, num_classes]`."""
    self._check(x)
    for i in range(self.num_blocks):
      for layer in self.layers:
        x = self._layer(layer, i, x, use_running_average)
      if self.warp is not None:
        x = self._warp(self.warp, f"warp_{i}")(x, use_running_average=use_running_average)
    x = jnp.mean(x, axis=(1, 2)) if self.readout == "mean" else x.reshape(x.shape[0], -1)
    for i, width in enumerate(self.hidden):
      x = nn.relu(self._dense(x, width, f"dense_{i}", self.kernel_init))
    head_init = chosen("head_init", self.head_init or self.kernel_init, HEAD_INITS)
    if self.warp is not None and self.warp.head:
      x = self._dense(x, x.shape[-1], "head", head_init)
      return warp_head(self.warp, self.num_classes, x.shape[-1], **self._dtypes())(x)
    return self._dense(x, self.num_classes, "head", head_init)

  def _layer(self, layer: str, index: int, x: jax.Array, use_running_average: bool) -> jax.Array:
    if layer == "conv":
      return self._conv(x, f"conv_{index}")
    if layer == "norm":
      return self._norm(f"norm_{index}", use_running_average)(x)
    if layer == "pool":
      return pooling.max_pool(x, padding=self.pool_padding)
    return nn.relu(x) if layer == "relu" else nn.leaky_relu(x)

  def _conv(self, x: jax.Array, name: str) -> jax.Array:
    return nn.Conv(
      self.width,
      (3, 3),
      strides=self.strides,
      padding=self.padding,
      use_bias=self.conv_bias,
      kernel_init=self.kernel_init,
      bias_init=bias_initializer(self.bias_init, 9 * x.shape[-1]),
      conv_general_dilated=self.conv_general_dilated,
      name=name,
      **self._dtypes(),
    )(x)

  def _norm(self, name: str, use_running_average: bool) -> nn.Module:
    return norm_layer(
      self.norm,
      use_running_average=use_running_average,
      epsilon=self.norm_epsilon,
      use_scale=self.norm_scale,
      groups=self.norm_groups,
      name=name,
      **self._dtypes(),
    )

  def _dense(self, x: jax.Array, width: int, name: str, kernel_init: Initializer) -> jax.Array:
    bias_init = bias_initializer(self.bias_init, x.shape[-1])
    return nn.Dense(width, kernel_init=kernel_init, bias_init=bias_init, name=name, **self._dtypes())(x)

  def _warp(self, spec: WarpSpec, name: str) -> Warp:
    return Warp(spec, self.conv_general_dilated, self.norm_epsilon, name=name, **self._dtypes())

  def _dtypes(self) -> dict[str, Any]:
    return {"dtype": self.dtype, "param_dtype": self.param_dtype}

  def _check(self, x: jax.Array) -> None:
    if x.ndim != 4:
      raise ValueError(f"x must be [batch, height, width, channels], got shape {x.shape}.")
    check_floating(x)
    check_widths(hidden=self.hidden)
    check_counts(
      num_classes=self.num_classes,
      width=self.width,
      strides=self.strides,
      num_blocks=self.num_blocks,
      norm_groups=self.norm_groups,
    )
    check_choice("readout", self.readout, Readout)
    if set(self.layers) - set(LAYERS) or tuple(self.layers).count("conv") != 1 or tuple(self.layers).count("norm") > 1:
      raise ValueError(f"layers must have 'conv' once, 'norm' at most once and only {LAYERS}, got {self.layers!r}.")
    if self.warp is not None:
      check(self.warp)
