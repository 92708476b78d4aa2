"""Networks: the only part of warpjax that imports flax."""

from warpjax.networks.adapters import Network, WarpParam, from_linen, from_nnx
from warpjax.networks.conv import conv_general_dilated
from warpjax.networks.conv4 import Conv4
from warpjax.networks.mlp import MLP
from warpjax.networks.policies import RNN, GaussianMLP, HebbianRNN, WarpRNN
from warpjax.networks.pooling import max_pool
from warpjax.networks.presets import (
  imaml_omniglot,
  maml_mini_imagenet,
  maml_omniglot,
  maml_sinusoid,
  meta_sgd_omniglot,
  reptile_mini_imagenet,
  reptile_omniglot,
  reptile_sinusoid,
  warpgrad_omniglot,
)
from warpjax.networks.warp import Warp, WarpSpec

__all__ = [
  "MLP",
  "RNN",
  "Conv4",
  "GaussianMLP",
  "HebbianRNN",
  "Network",
  "Warp",
  "WarpParam",
  "WarpRNN",
  "WarpSpec",
  "conv_general_dilated",
  "from_linen",
  "from_nnx",
  "imaml_omniglot",
  "maml_mini_imagenet",
  "maml_omniglot",
  "maml_sinusoid",
  "max_pool",
  "meta_sgd_omniglot",
  "reptile_mini_imagenet",
  "reptile_omniglot",
  "reptile_sinusoid",
  "warpgrad_omniglot",
]
