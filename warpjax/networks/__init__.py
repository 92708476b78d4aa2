"""Networks: the only part of warpjax that imports flax."""

from warpjax.networks.adapters import Network, from_linen
from warpjax.networks.context import Modulation, cavia_omniglot, cavia_sinusoid, film, with_context
from warpjax.networks.conv import conv_general_dilated
from warpjax.networks.conv4 import Conv4
from warpjax.networks.dense import dot_general
from warpjax.networks.mlp import MLP
from warpjax.networks.nnx_adapter import WarpParam, from_nnx
from warpjax.networks.norm import BatchNorm
from warpjax.networks.policies import RNN, GaussianMLP, HebbianRNN, WarpRNN
from warpjax.networks.pooling import max_pool
from warpjax.networks.presets import (
  imaml_omniglot,
  maml_mini_imagenet,
  maml_omniglot,
  maml_sinusoid,
  mamlpp_mini_imagenet,
  meta_sgd_omniglot,
  reptile_mini_imagenet,
  reptile_omniglot,
  reptile_sinusoid,
  warpgrad_mini_imagenet,
  warpgrad_omniglot,
)
from warpjax.networks.resnet12 import ResNet12
from warpjax.networks.warp import Warp, WarpSpec

__all__ = [
  "MLP",
  "RNN",
  "BatchNorm",
  "Conv4",
  "GaussianMLP",
  "HebbianRNN",
  "Modulation",
  "Network",
  "ResNet12",
  "Warp",
  "WarpParam",
  "WarpRNN",
  "WarpSpec",
  "cavia_omniglot",
  "cavia_sinusoid",
  "conv_general_dilated",
  "dot_general",
  "film",
  "from_linen",
  "from_nnx",
  "imaml_omniglot",
  "maml_mini_imagenet",
  "maml_omniglot",
  "maml_sinusoid",
  "mamlpp_mini_imagenet",
  "max_pool",
  "meta_sgd_omniglot",
  "reptile_mini_imagenet",
  "reptile_omniglot",
  "reptile_sinusoid",
  "warpgrad_mini_imagenet",
  "warpgrad_omniglot",
  "with_context",
]
