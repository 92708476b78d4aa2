"""Multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from warpjax.checks import check_counts, check_widths
from warpjax.networks import dense
from warpjax.networks.by_name import ACTIVATIONS, Activation, Dtype, Function, Initializer, ParamDtype, chosen
from warpjax.networks.initializers import BiasInit, bias_initializer
from warpjax.networks.warp import Kind, Warp, WarpSpec, check, warp_head

WARP_KINDS: tuple[Kind, ...] = ("linear", "scale")


class MLP(nn.Module):
  """A multi-layer perceptron: `[dense, activation]` for each of `features`, then a linear head.

  Attributes:
    features: Width of each hidden layer.
    num_outputs: Width of the head.
    activation: Applied after each hidden layer: "relu", "tanh", or a function.
    kernel_init: Initializer of every kernel.
    bias_init: From a layer's number of inputs to the initializer of its bias; `None` for zeros.
    warp: Warp-layers ("linear" or "scale") after each hidden layer, named `warp_0`, `warp_1`, ...; `None` for none.
    dot_general: The product of dense layers, those of warps excepted; a drop-in for `jax.lax.dot_general`.
    dtype: Compute dtype; default: that of input and parameters.
    param_dtype: Dtype of the parameters; `float` is the default float of JAX.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> y, _ = MLP(features=(40, 40)).init_with_output(jax.random.key(0), jnp.ones((10, 1)))
    >>> y.shape
    (10, 1)
  """

  features: Sequence[int] = (40, 40)
  num_outputs: int = 1
  activation: Activation | Function = "relu"
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: BiasInit | None = None
  warp: WarpSpec | None = None
  dot_general: Callable[..., jax.Array] = dense.dot_general
  dtype: Dtype | None = None
  param_dtype: ParamDtype = float

  @nn.compact
  def __call__(self, x: jax.Array, *, use_running_average: bool = False) -> jax.Array:
    """`[..., num_inputs] -> [..., num_outputs]`."""
    check_widths(features=self.features)
    check_counts(num_outputs=self.num_outputs)
    if self.warp is not None:
      check(self.warp, WARP_KINDS)
    activation = chosen("activation", self.activation, ACTIVATIONS)
    for i, width in enumerate(self.features):
      x = activation(self._dense(x, width, f"dense_{i}"))
      if self.warp is not None:
        warp = Warp(self.warp, dtype=self.dtype, param_dtype=self.param_dtype, name=f"warp_{i}")
        x = warp(x, use_running_average=use_running_average)
    if self.warp is not None and self.warp.head:
      x = self._dense(x, x.shape[-1], "head")
      return warp_head(self.warp, self.num_outputs, x.shape[-1], dtype=self.dtype, param_dtype=self.param_dtype)(x)
    return self._dense(x, self.num_outputs, "head")

  def _dense(self, x: jax.Array, width: int, name: str) -> jax.Array:
    inits: dict[str, Any] = {
      "kernel_init": self.kernel_init,
      "bias_init": bias_initializer(self.bias_init, x.shape[-1]),
      "dot_general": self.dot_general,
    }
    return nn.Dense(width, **inits, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)
