"""Policy networks: a Gaussian MLP, and three recurrent actor-critics whose memory is None at the start.

The recurrent ones start as PyTorch's `RNNCell` and linear layers of that width do, kernels and biases alike uniform
within `1 / sqrt(width)`; the released Warp-RNN starts from orthogonal kernels, with one bias, of zeros. What an RNN and
a Warp-RNN share has the same names and starts from the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.checks import check_counts
from warpjax.networks.by_name import Activation, Function
from warpjax.networks.initializers import torch_bias
from warpjax.networks.mlp import MLP
from warpjax.types import PyTree

MIN_LOG_STD = -13.8  # log(1e-6), as in rllab


class GaussianMLP(nn.Module):
  """`observations [..., n] -> (mean, log_std)`, each `[..., num_outputs]`; `log_std` does not depend on x.

  Attributes:
    features: Width of each hidden layer.
    num_outputs: Dimensions of an action.
    init_std: The deviation at the start, above 0.
    activation: Activation of the hidden layers: "relu", "tanh", or a function.

  Reference:
    Finn, Abbeel, Levine 2017, arXiv 1703.03400, released code: 100-100, deviations that start at 1 and are learned.
  """

  features: Sequence[int] = (100, 100)
  num_outputs: int = 2
  init_std: float = 1.0
  activation: Activation | Function = "relu"

  def __post_init__(self) -> None:
    """Raises a ValueError for a standard deviation that is not positive."""
    if not self.init_std > 0:
      raise ValueError(f"init_std must be above 0; got {self.init_std!r}")
    super().__post_init__()

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The parameters of `rl.policies.gaussian`."""
    init = nn.initializers.xavier_uniform()
    mean = MLP(self.features, self.num_outputs, self.activation, init, name="mean")(x)
    constant = nn.initializers.constant(jnp.log(self.init_std))
    log_std = self.param("log_std", constant, (self.num_outputs,), mean.dtype)
    return mean, jnp.broadcast_to(jnp.where(log_std < MIN_LOG_STD, MIN_LOG_STD, log_std), mean.shape)


class RNN(nn.Module):
  """`(h, x) -> (h', logits, value)`: `h' = tanh(W x + b + U h + c)`, with linear heads.

  Attributes:
    width: Width of the hidden state.
    num_actions: Outputs of the policy head.
  """

  width: int = 100
  num_actions: int = 4

  @nn.compact
  def __call__(self, inputs: tuple[jax.Array | None, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One step; leading axes `[episodes]`."""
    check_counts(width=self.width, num_actions=self.num_actions)
    hidden, x = inputs
    hidden = jnp.zeros((*x.shape[:-1], self.width)) if hidden is None else hidden
    (wx, b), (uh, c) = _Affine(self.width, name="input")(x), _Affine(self.width, name="hidden")(hidden)
    hidden = jnp.tanh(wx + b + uh + c)
    return hidden, *_heads(hidden, self.num_actions)


class WarpRNN(nn.Module):
  """An RNN in which every term is scaled by the outputs of an LSTM, the warp, on the same inputs.

  `h' = tanh(g1 W (g2 x) + g3 b + g4 U (g5 h) + g6 c)`, `g = tanh(V lstm(x, h))`. The warp's modules are named `warp_*`,
  so that their parameters are shared and those of the RNN and its heads adapt.

  Attributes:
    width: Width of the RNN and of the LSTM.
    num_actions: Outputs of the policy head.

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.3 and its released code.
  """

  width: int = 100
  num_actions: int = 4

  @nn.compact
  def __call__(self, inputs: tuple[PyTree, jax.Array]) -> tuple[PyTree, jax.Array, jax.Array]:
    """One step; leading axes `[episodes]`."""
    check_counts(width=self.width, num_actions=self.num_actions)
    memory, x = inputs
    width = self.width
    zeros = jnp.zeros((*x.shape[:-1], width))
    modulator, hidden = ((zeros, zeros), zeros) if memory is None else memory
    init = torch_bias(width)
    lstm = nn.OptimizedLSTMCell(width, kernel_init=init, recurrent_kernel_init=init, bias_init=init, name="warp_lstm")
    modulator, code = lstm(modulator, jnp.concatenate([x, hidden], axis=-1))
    sizes = (x.shape[-1], *[width] * 5)
    projected = nn.Dense(sum(sizes), use_bias=False, kernel_init=init, name="warp_gains")(code)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    of_x, of_h, of_wx, of_uh, of_b, of_c = jnp.split(jnp.tanh(projected), ends, axis=-1)
    (wx, b), (uh, c) = _Affine(width, name="input")(of_x * x), _Affine(width, name="hidden")(of_h * hidden)
    hidden = jnp.tanh(of_wx * wx + of_b * b + of_uh * uh + of_c * c)
    return (modulator, hidden), *_heads(hidden, self.num_actions)


class HebbianRNN(nn.Module):
  """An RNN whose recurrent weights grow with the activity they carry: `U + A * trace`.

  `h' = tanh(W x + b + h (U + A * trace))`, `trace' = clip(trace + eta outer(h, h'), -1, 1)`.

  Attributes:
    width: Width of the hidden state.
    num_actions: Outputs of the policy head.
    modulated: Whether eta is `linear(tanh(linear(h')))`, one number for each neuron, instead of one learned number.

  Reference:
    Miconi et al. 2019, arXiv 2002.10585 (backpropamine), the released maze code.
  """

  width: int = 100
  num_actions: int = 4
  modulated: bool = True

  @nn.compact
  def __call__(self, inputs: tuple[PyTree, jax.Array]) -> tuple[PyTree, jax.Array, jax.Array]:
    """One step; leading axes `[episodes]`."""
    check_counts(width=self.width, num_actions=self.num_actions)
    memory, x = inputs
    sizes = (*x.shape[:-1], self.width)
    trace, before = (jnp.zeros((*sizes, self.width)), jnp.zeros(sizes)) if memory is None else memory
    square = (self.width, self.width)
    weights = self.param("recurrent", torch_bias(self.width), square, jnp.float32)
    plasticity = self.param("plasticity", nn.initializers.normal(0.01), square)
    recurrent = before @ weights + jnp.einsum("...i,...ij->...j", before, plasticity * trace)
    wx, b = _Affine(self.width, name="input")(x)
    hidden = jnp.tanh(wx + b + recurrent)
    grown = before[..., :, None] * hidden[..., None, :]
    trace = trace + self._rate(hidden) * grown
    trace = jnp.where(jnp.abs(trace) <= 1, trace, jnp.sign(trace))  # jnp.clip loses half of the gradient at a bound
    return (trace, hidden), *_heads(hidden, self.num_actions)

  def _rate(self, hidden: jax.Array) -> jax.Array:
    if not self.modulated:
      return self.param("rate", nn.initializers.constant(0.1), ())
    modulator = jnp.tanh(_linear(1, self.width, "modulator")(hidden))
    return _linear(self.width, 1, "fan_out")(modulator)[..., None, :]


class _Affine(nn.Module):
  """`x -> (W x, b)`, not added, for a cell that is as wide as its output."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    init = torch_bias(self.features)
    kernel = self.param("kernel", init, (x.shape[-1], self.features), jnp.float32)
    return x @ kernel, self.param("bias", init, (self.features,), jnp.float32)


def _linear(features: int, fan_in: int, name: str) -> nn.Dense:
  return nn.Dense(features, kernel_init=torch_bias(fan_in), bias_init=torch_bias(fan_in), name=name)


def _heads(hidden: jax.Array, num_actions: int) -> tuple[jax.Array, Any]:
  value = _linear(1, hidden.shape[-1], "value")(hidden)[..., 0]
  return _linear(num_actions, hidden.shape[-1], "policy")(hidden), value
