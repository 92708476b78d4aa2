"""Each paper's own network, by name. Any field of `Conv4` or `MLP` can be overridden by keyword."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.networks.conv4 import Conv4
from warpjax.networks.initializers import torch_bias, torch_uniform
from warpjax.networks.mlp import MLP

IMAML_GAIN = 1.73
_imaml_uniform = nn.initializers.variance_scaling(IMAML_GAIN**2, "fan_avg", "uniform")


def maml_omniglot(num_classes: int = 5, **overrides: Any) -> Conv4:
  """MAML on Omniglot: [conv stride 2, norm (bias only), ReLU] x 4, spatial mean, a head that starts at N(0, 1).

  Returns:
    A `Conv4`, `[batch, 28, 28, 1] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = maml_omniglot(), jnp.ones((2, 28, 28, 1))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (64, 5))

  Reference: Finn, Abbeel, Levine 2017, arXiv 1703.03400, and its released code.
  """
  return Conv4(num_classes=num_classes, **overrides)


def maml_mini_imagenet(num_classes: int = 5, **overrides: Any) -> Conv4:
  """MAML on mini-ImageNet: [conv, norm (bias only), ReLU, pool] x 4 of 32 filters, flattened (5 x 5 x 32 = 800).

  Returns:
    A `Conv4`, `[batch, 84, 84, 3] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = maml_mini_imagenet(), jnp.ones((2, 84, 84, 3))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (800, 5))

  Reference: Finn, Abbeel, Levine 2017, arXiv 1703.03400, and its released code.
  """
  layers = ("conv", "norm", "relu", "pool")
  return _conv4(
    overrides, num_classes=num_classes, width=32, layers=layers, strides=1, readout="flatten", head_init=None
  )


def mamlpp_mini_imagenet(num_classes: int = 5, **overrides: Any) -> Conv4:
  """MAML++ on mini-ImageNet: [conv, norm, leaky ReLU, pool] x 4 of 48 filters, flattened (5 x 5 x 48 = 1200).

  Returns:
    A `Conv4`, `[batch, 84, 84, 3] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = mamlpp_mini_imagenet(), jnp.ones((2, 84, 84, 3))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (1200, 5))

  Reference: Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, and its released code.
  """
  defaults = {
    "layers": ("conv", "norm", "leaky_relu", "pool"),
    "strides": 1,
    "readout": "flatten",
    "norm_epsilon": 1e-5,
  }
  return _conv4(overrides, num_classes=num_classes, width=48, norm_scale=True, head_init=None, **defaults)


def warpgrad_mini_imagenet(num_classes: int = 5, **overrides: Any) -> Conv4:
  """WarpGrad on mini- and tiered-ImageNet: [conv, norm, pool, ReLU] x 4; pass `warp=WarpSpec()`.

  The paper names the order of a block; its 64 filters are those of a published re-run, as no code was released.

  Returns:
    A `Conv4`, `[batch, 84, 84, 3] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = warpgrad_mini_imagenet(), jnp.ones((2, 84, 84, 3))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (1600, 5))

  Reference: Flennerhag et al. 2020, arXiv 1909.00025, section 4.1.
  """
  defaults = {"layers": ("conv", "norm", "pool", "relu"), "strides": 1, "readout": "flatten", "norm_epsilon": 1e-5}
  return _conv4(overrides, num_classes=num_classes, norm_scale=True, head_init=None, **defaults)


def reptile_omniglot(num_classes: int = 5, **overrides: Any) -> Conv4:
  """Reptile on Omniglot: [conv stride 2, norm, ReLU] x 4, flattened (2 x 2 x 64 = 256).

  Returns:
    A `Conv4`, `[batch, 28, 28, 1] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = reptile_omniglot(), jnp.ones((2, 28, 28, 1))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (256, 5))

  Reference: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, and its released code.
  """
  return _conv4(overrides, num_classes=num_classes, readout="flatten", norm_scale=True, head_init=None)


def reptile_mini_imagenet(num_classes: int = 5, **overrides: Any) -> Conv4:
  """Reptile on mini-ImageNet: [conv, norm, pool (SAME), ReLU] x 4 of 32 filters, flattened (6 x 6 x 32 = 1152).

  Returns:
    A `Conv4`, `[batch, 84, 84, 3] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = reptile_mini_imagenet(), jnp.ones((2, 84, 84, 3))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (1152, 5))

  Reference: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, and its released code.
  """
  defaults = {"layers": ("conv", "norm", "pool", "relu"), "strides": 1, "pool_padding": "SAME", "readout": "flatten"}
  return _conv4(overrides, num_classes=num_classes, width=32, norm_scale=True, head_init=None, **defaults)


def imaml_omniglot(num_classes: int = 5, **overrides: Any) -> Conv4:
  """iMAML on Omniglot: [conv stride 2 padding 1, norm, ReLU] x 4, flattened (2 x 2 x 64); Xavier-uniform, gain 1.73.

  The released code pads the third block's input by a zero row and column, which its padding of 1 makes without effect.

  Returns:
    A `Conv4`, `[batch, 28, 28, 1] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = imaml_omniglot(), jnp.ones((2, 28, 28, 1))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (256, 5))

  Reference: Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630, and its released code.
  """
  inits = {"kernel_init": _imaml_uniform, "bias_init": lambda fan_in: _uniform_0_005, "head_init": None}
  defaults = {"padding": 1, "readout": "flatten", "norm_scale": True, "norm_epsilon": 1e-5}
  return _conv4(overrides, num_classes=num_classes, **inits, **defaults)


def warpgrad_omniglot(num_classes: int = 20, **overrides: Any) -> Conv4:
  """WarpGrad and Leap on Omniglot: [conv padding 1, pool, norm, ReLU] x 4, flattened (64); pass `warp=WarpSpec()`.

  Convolutions have a bias, as in the released code (113,236 task parameters); its true gradient is zero.

  Returns:
    A `Conv4`, `[batch, 28, 28, 1] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = warpgrad_omniglot(), jnp.ones((2, 28, 28, 1))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 20), (64, 20))

  Reference: Flennerhag et al. 2020, arXiv 1909.00025, appendix E, and its released code.
  """
  inits = {"kernel_init": torch_uniform, "bias_init": torch_bias, "head_init": None}
  norm = {"norm_scale": True, "norm_epsilon": 1e-5}
  defaults = {"layers": ("conv", "pool", "norm", "relu"), "strides": 1, "padding": 1, "readout": "flatten"}
  return _conv4(overrides, num_classes=num_classes, conv_bias=True, **norm, **inits, **defaults)


def meta_sgd_omniglot(num_classes: int = 5, **overrides: Any) -> Conv4:
  """Meta-SGD on Omniglot: [conv, norm, ReLU, pool] x 4 of 64 filters, a fully connected layer of 32, the head.

  Returns:
    A `Conv4`, `[batch, 28, 28, 1] -> [batch, num_classes]`; `overrides` are fields of it.

  Example:
    >>> network, x = meta_sgd_omniglot(), jnp.ones((2, 28, 28, 1))
    >>> logits, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> logits.shape, variables["params"]["head"]["kernel"].shape
    ((2, 5), (32, 5))

  Reference: Li, Zhou, Chen, Li 2017, arXiv 1707.09835 (no code was released; initialisers are ours).
  """
  defaults = {"layers": ("conv", "norm", "relu", "pool"), "strides": 1, "readout": "flatten", "hidden": (32,)}
  return _conv4(overrides, num_classes=num_classes, norm_scale=True, head_init=None, **defaults)


def maml_sinusoid(**overrides: Any) -> MLP:
  """MAML (and Meta-SGD) on sines: 1-40-40-1, ReLU, kernels from a truncated normal of deviation 0.01.

  Returns:
    An `MLP`, `[batch, 1] -> [batch, 1]`; `overrides` are fields of it.

  Example:
    >>> network, x = maml_sinusoid(), jnp.ones((10, 1))
    >>> y, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> y.shape, variables["params"]["dense_1"]["kernel"].shape
    ((10, 1), (40, 40))

  Reference: Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.1, and its released code.
  """
  return MLP(**{"features": (40, 40), "kernel_init": nn.initializers.truncated_normal(0.01), **overrides})


def reptile_sinusoid(**overrides: Any) -> MLP:
  """Reptile on sines: 1-64-64-1, tanh (the released demo's; the paper's figure has ReLU), PyTorch's initial values.

  Tanh units without random biases all turn at 0: after 32 steps the demo's error is 2.1 in place of 0.1.

  Returns:
    An `MLP`, `[batch, 1] -> [batch, 1]`; `overrides` are fields of it.

  Example:
    >>> network, x = reptile_sinusoid(), jnp.ones((10, 1))
    >>> y, variables = jax.eval_shape(network.init_with_output, jax.random.key(0), x)
    >>> y.shape, variables["params"]["dense_1"]["kernel"].shape
    ((10, 1), (64, 64))

  Reference: Nichol, Achiam, Schulman 2018, arXiv 1803.02999, and the released demo.
  """
  inits = {"kernel_init": torch_uniform, "bias_init": torch_bias}
  return MLP(**{"features": (64, 64), "activation": jnp.tanh, **inits, **overrides})


def _conv4(overrides: dict[str, Any], **defaults: Any) -> Conv4:
  return Conv4(**{**defaults, **overrides})


def _uniform_0_005(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
  return jax.random.uniform(key, shape, dtype, 0.0, 0.05)
