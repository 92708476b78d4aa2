"""Warp-layers: layers between a learner's own, meta-learned across tasks and frozen while a task adapts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax

from warpjax.checks import check_choice, check_count
from warpjax.networks import conv
from warpjax.networks.by_name import ACTIVATIONS, Activation, Dtype, Function, Initializer, ParamDtype, chosen
from warpjax.networks.initializers import BiasInit, bias_initializer, torch_bias, torch_uniform
from warpjax.networks.norm import BatchNorm

CONV_KERNELS = {"conv1x1": (1, 1), "conv3x3": (3, 3)}
Kind = Literal["linear", "scale", "conv1x1", "conv3x3"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class WarpSpec(NamedTuple):
  """The form of a network's warp-layers; the default is the paper's default for images, a bare 3x3 convolution.

  Attributes:
    kind: "linear" (dense, over the last axis), "conv1x1", "conv3x3", or "scale" (one factor per channel).
    activation: After the kernel: "relu", "tanh" or a function; `None` for a linear warp.
    batch_norm: A batch norm before the kernel and, with `residual`, one after the sum.
    residual: Adds the layer's input to its output; a 1x1 kernel adjusts the input if the widths differ.
    num_layers: Number of such layers after each block.
    hidden_width: Width between them; default: that of the block.
    identity_init: Starts exactly as the identity: the input plus a branch of zeros. The branch has a zero kernel or,
      with an activation, a zero factor per channel, as a zero kernel may get no gradient. No batch norm after the sum.
    head: Puts a linear warp-layer, `warp_head`, after the head too; the head then keeps the width of its input.
    kernel_init: Initialiser of the kernels.
    bias_init: From a kernel's fan-in to the initialiser of its bias; `None`, and with `identity_init`, for zeros.

  Reference: Flennerhag et al. 2020, arXiv 1909.00025, appendix F (the capacity ladder), and its released code.
  """

  kind: Kind = "conv3x3"
  activation: Activation | Function | None = None
  batch_norm: bool = False
  residual: bool = False
  num_layers: int = 1
  hidden_width: int | None = None
  identity_init: bool = False
  head: bool = False
  kernel_init: Initializer = torch_uniform
  bias_init: BiasInit | None = torch_bias


def check(spec: WarpSpec, kinds: tuple[Kind, ...] = KINDS) -> None:
  """Raises `ValueError` if `spec` cannot be used in a network that takes `kinds`."""
  check_choice("warp.kind", spec.kind, kinds)
  check_count("warp.num_layers (warp=None for no warp-layers)", spec.num_layers)
  check_count("warp.hidden_width", spec.hidden_width, optional=True)
  if spec.hidden_width is not None and (spec.identity_init or spec.kind == "scale"):
    raise ValueError(f"warp.hidden_width must be None with identity_init or kind='scale', got {spec.hidden_width}.")
  if spec.hidden_width is not None and spec.num_layers == 1:
    raise ValueError(f"warp.hidden_width needs num_layers above 1, got {spec.hidden_width}.")


def warp_head(spec: WarpSpec, num_outputs: int, fan_in: int, **dtypes: Any) -> nn.Dense:
  """The linear warp-layer after the head, from `fan_in` features to `num_outputs`, as `spec` initialises its layers."""
  inits: dict[str, Any] = {"kernel_init": spec.kernel_init, "bias_init": _bias(spec, fan_in)}
  return nn.Dense(num_outputs, **inits, **dtypes, name="warp_head")


class Warp(nn.Module):
  """The warp-layers after one block. Name it `warp*`: by that name its parameters are shared.

  Each layer is `norm_in -> kernel -> activation -> + input -> norm_out`, of which `spec` chooses the parts.

  Attributes:
    spec: The form of each layer.
    conv_general_dilated: The convolution; a drop-in for `jax.lax.conv_general_dilated`.
    norm_epsilon: Added to the variance.
    dtype: Compute dtype; default: that of input and parameters.
    param_dtype: Dtype of the parameters; `float` is the default float of JAX.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> x = jnp.arange(6.0).reshape(2, 3)
    >>> y, _ = Warp(WarpSpec("linear", identity_init=True)).init_with_output(jax.random.key(0), x)
    >>> bool((x == y).all())
    True
  """

  spec: WarpSpec = WarpSpec()
  conv_general_dilated: Callable[..., jax.Array] = conv.conv_general_dilated
  norm_epsilon: float = 1e-5
  dtype: Dtype | None = None
  param_dtype: ParamDtype = float

  @nn.compact
  def __call__(self, x: jax.Array, *, use_running_average: bool = False) -> jax.Array:
    """`[..., width] -> [..., width]`."""
    check(self.spec)
    width = x.shape[-1]
    for i in range(self.spec.num_layers):
      last = i == self.spec.num_layers - 1
      x = self._layer(x, width if last else self.spec.hidden_width or width, i, use_running_average)
    return x

  def _layer(self, x: jax.Array, width: int, index: int, use_running_average: bool) -> jax.Array:
    spec, h = self.spec, x
    if spec.batch_norm:
      h = self._norm(f"norm_in_{index}", use_running_average)(h)
    h = self._kernel(h, width, f"{spec.kind}_{index}")
    if spec.activation is not None:
      h = chosen("activation", spec.activation, ACTIVATIONS)(h)
    if spec.identity_init:
      # A zero kernel before a ReLU would never move: its gradient is zero. A zero factor after it does.
      return x + (h if spec.activation is None else self._scale(h, f"gate_{index}", nn.initializers.zeros_init()))
    if spec.residual:
      h = h + (x if x.shape[-1] == width else self._dense(x, width, f"residual_{index}", spec.kernel_init))
      if spec.batch_norm:
        h = self._norm(f"norm_out_{index}", use_running_average)(h)
    return h

  def _kernel(self, x: jax.Array, width: int, name: str) -> jax.Array:
    spec = self.spec
    starts_at_zero = spec.identity_init and spec.activation is None
    if spec.kind == "scale":
      ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
      return self._scale(x, name, zeros if starts_at_zero else ones)
    kernel_init = nn.initializers.zeros_init() if starts_at_zero else spec.kernel_init
    if spec.kind == "linear":
      return self._dense(x, width, name, kernel_init)
    return nn.Conv(
      width,
      CONV_KERNELS[spec.kind],
      kernel_init=kernel_init,
      bias_init=_bias(spec, x.shape[-1] * math.prod(CONV_KERNELS[spec.kind])),
      conv_general_dilated=self.conv_general_dilated,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=name,
    )(x)

  def _dense(self, x: jax.Array, width: int, name: str, kernel_init: Initializer) -> jax.Array:
    inits: dict[str, Any] = {"kernel_init": kernel_init, "bias_init": _bias(self.spec, x.shape[-1])}
    return nn.Dense(width, **inits, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)

  def _scale(self, x: jax.Array, name: str, init: Initializer) -> jax.Array:
    x, factor = nn.dtypes.promote_dtype(x, self.param(name, init, x.shape[-1:], self.param_dtype), dtype=self.dtype)
    return x * factor

  def _norm(self, name: str, use_running_average: bool) -> BatchNorm:
    return BatchNorm(
      use_running_average=use_running_average,
      momentum=0.9,
      epsilon=self.norm_epsilon,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name=name,
    )


def _bias(spec: WarpSpec, fan_in: int) -> Initializer:
  return bias_initializer(None if spec.identity_init else spec.bias_init, fan_in)
