"""Networks: the only part of warpjax that imports flax."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import jax

from warpjax.networks.adapters import Network, from_linen
from warpjax.networks.context import Modulation, cavia_omniglot, cavia_sinusoid, film, with_context
from warpjax.networks.conv import conv_general_dilated
from warpjax.networks.conv4 import Conv4
from warpjax.networks.dense import dot_general
from warpjax.networks.mlp import MLP
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
from warpjax.networks.transformer import Transformer, last_mlps
from warpjax.networks.warp import Warp, WarpSpec

if TYPE_CHECKING:
  from warpjax.networks.nnx_adapter import WarpParam, from_nnx

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
  "Transformer",
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
  "last_mlps",
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


def __getattr__(name: str) -> Any:
  """Imports flax's nnx, which takes longer than the rest of flax, when it is first used."""
  if name not in ("WarpParam", "from_nnx"):
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  with jax.ensure_compile_time_eval():  # the first use may be inside of jit
    globals()[name] = getattr(importlib.import_module("warpjax.networks.nnx_adapter"), name)
  return globals()[name]
