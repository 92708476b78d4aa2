"""Each paper's own network, by name: a module of ours with the paper's fields.

Call one of images with the width of the head, `maml_omniglot(5)`, and any other field by keyword. Omniglot's take
`[batch, 28, 28, 1]`, mini-ImageNet's `[batch, 84, 84, 3]`, and the sines' `[batch, 1]`.

| preset | paper | a block | before the head |
|---|---|---|---|
| `maml_omniglot` | Finn et al. 2017, arXiv 1703.03400, and code | conv stride 2, norm (bias only), ReLU | mean, 64 |
| `maml_mini_imagenet` | the same | conv (32), norm (bias only), ReLU, pool | 5 x 5 x 32 = 800 |
| `mamlpp_mini_imagenet` | Antoniou et al. 2019, arXiv 1810.09502, and code | conv (48), norm, leaky ReLU, pool | 1200 |
| `warpgrad_omniglot` | Flennerhag et al. 2020, arXiv 1909.00025, E, and code | conv, pool, norm, ReLU | 64 |
| `warpgrad_mini_imagenet` | the same, section 4.1 | conv, norm, pool, ReLU | 1600 |
| `reptile_omniglot` | Nichol et al. 2018, arXiv 1803.02999, and code | conv stride 2, norm, ReLU | 2 x 2 x 64 = 256 |
| `reptile_mini_imagenet` | the same | conv (32), norm, pool (SAME), ReLU | 6 x 6 x 32 = 1152 |
| `imaml_omniglot` | Rajeswaran et al. 2019, arXiv 1909.04630, and code | conv stride 2 padding 1, norm, ReLU | 256 |
| `meta_sgd_omniglot` | Li et al. 2017, arXiv 1707.09835 | conv, norm, ReLU, pool | a layer of 32 |
| `maml_sinusoid` | Finn et al. 2017, section 5.1, and code | dense (40), ReLU, twice | 40 |
| `reptile_sinusoid` | Nichol et al. 2018, the released demo | dense (64), tanh, twice | 64 |
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import flax.linen as nn
import jax

from warpjax.networks.conv4 import Conv4
from warpjax.networks.initializers import torch_bias, torch_uniform
from warpjax.networks.mlp import MLP

IMAML_GAIN = 1.73
_imaml_uniform = nn.initializers.variance_scaling(IMAML_GAIN**2, "fan_avg", "uniform")


class Preset(functools.partial):
  """`Preset(module, **fields)`: the module with a paper's fields; its signature is the module's.

  Args:
    module: `Conv4` or another, whose first field may be passed by position.
    **fields: The paper's, which a call can override by keyword.

  Example:
    >>> wide = Preset(Conv4, num_classes=20, width=128)
    >>> wide().width, wide(5).num_classes, wide(width=32).num_classes
    (128, 5, 20)
  """

  def __call__(self, *first: Any, **fields: Any) -> Any:
    """The module, of a width of the head or with other fields."""
    names = list(inspect.signature(self.func).parameters)[: len(first)]
    return self.func(**{**self.keywords, **dict(zip(names, first, strict=True)), **fields})


def _uniform_0_005(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
  return jax.random.uniform(key, shape, dtype, 0.0, 0.05)


def _imaml_bias(fan_in: int) -> Any:
  del fan_in
  return _uniform_0_005


_PYTORCH_NORM: dict[str, Any] = {"norm_scale": True, "norm_epsilon": 1e-5}
_PYTORCH_INITS: dict[str, Any] = {"kernel_init": torch_uniform, "bias_init": torch_bias}
_POOLED: dict[str, Any] = {"strides": 1, "readout": "flatten", "head_init": None}

maml_omniglot = Preset(Conv4)
maml_mini_imagenet = Preset(Conv4, width=32, layers=("conv", "norm", "relu", "pool"), **_POOLED)
mamlpp_mini_imagenet = Preset(
  Conv4, width=48, layers=("conv", "norm", "leaky_relu", "pool"), **_POOLED, **_PYTORCH_NORM
)
# Convolutions have a bias, as in the released code (113,236 task parameters); its true gradient is zero.
warpgrad_omniglot = Preset(
  Conv4,
  num_classes=20,
  layers=("conv", "pool", "norm", "relu"),
  padding=1,
  conv_bias=True,
  **_POOLED,
  **_PYTORCH_NORM,
  **_PYTORCH_INITS,
)
# The paper names the order of a block; 64 filters are those of a published re-run, as no code was released.
warpgrad_mini_imagenet = Preset(Conv4, layers=("conv", "norm", "pool", "relu"), **_POOLED, **_PYTORCH_NORM)
reptile_omniglot = Preset(Conv4, readout="flatten", norm_scale=True, head_init=None)
reptile_mini_imagenet = Preset(
  Conv4, width=32, layers=("conv", "norm", "pool", "relu"), pool_padding="SAME", norm_scale=True, **_POOLED
)
# The released code pads the third block's input by a zero row and column, which has no effect with its padding of 1.
imaml_omniglot = Preset(
  Conv4,
  padding=1,
  readout="flatten",
  kernel_init=_imaml_uniform,
  bias_init=_imaml_bias,
  head_init=None,
  **_PYTORCH_NORM,
)
# No code was released; the initializers are ours.
meta_sgd_omniglot = Preset(Conv4, layers=("conv", "norm", "relu", "pool"), hidden=(32,), norm_scale=True, **_POOLED)
maml_sinusoid = Preset(MLP, features=(40, 40), kernel_init=nn.initializers.truncated_normal(0.01))
# Tanh units without random biases all turn at 0: after 32 steps the demo's error is then 2.1 instead of 0.1. The
# paper's figure has ReLU.
reptile_sinusoid = Preset(MLP, features=(64, 64), activation="tanh", **_PYTORCH_INITS)
