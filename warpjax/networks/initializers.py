"""Initial values as PyTorch has them by default, with which several papers' released code starts."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax

BiasInit = Callable[[int], Callable[..., jax.Array]]
"""From a layer's fan-in to the initializer of its bias."""

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for kernels, whose fan-in is in their shape."""


def torch_bias(fan_in: int) -> Callable[..., jax.Array]:
  """The same for arrays without a fan-in: biases, and the kernels of recurrent cells, which use the width."""
  bound = 1 / math.sqrt(fan_in)
  return lambda key, shape, dtype=float: jax.random.uniform(key, shape, dtype, -bound, bound)


def bias_initializer(bias_init: BiasInit | None, fan_in: int) -> Callable[..., jax.Array]:
  """The initializer of a bias in a layer of that fan-in; zeros for `None`."""
  return nn.initializers.zeros_init() if bias_init is None else bias_init(fan_in)
