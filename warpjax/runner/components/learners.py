"""The networks of a config's `network` table: a preset by name; a field that is not given is the preset's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from warpjax import networks, partition
from warpjax.networks import conv, presets
from warpjax.runner.components import warp as warp_settings
from warpjax.runner.components.warp import ACTIVATIONS, Activation
from warpjax.runner.config import schema
from warpjax.runner.families import multi_shot, optimizees, reinforcement, synthetic

NO_WARP: dict[str, Any] = {}
# Of the computations; parameters, batch statistics, losses and sums over tasks stay in single precision.
Dtype = Literal["float32", "bfloat16"]
ADAPTS: dict[str, Callable[[tuple[Any, ...]], bool] | None] = {
  "all": None,
  "head": lambda path: path[0] != "head",
  "body": lambda path: path[0] == "head",
  "all_but_norm": lambda path: path[0].startswith("norm"),
}
HEAD_INITS = {"normal": jax.nn.initializers.normal(1.0), "xavier": jax.nn.initializers.xavier_uniform()}


def _mlp(make: Callable[..., networks.MLP]) -> Callable[..., networks.Network]:
  def network(
    num_outputs: int,
    features: Sequence[int] | None = None,
    activation: Activation | None = None,
    dtype: Dtype | None = None,
    adapts: str = "all",
    warp: dict = NO_WARP,
  ) -> networks.Network:
    overrides = schema.given(
      {"features": features and tuple(features), "activation": activation and ACTIVATIONS[activation]}
    )
    module = make(num_outputs=num_outputs, warp=warp_settings.spec(warp), **overrides, **_compute(dtype))
    return networks.from_linen(module, is_shared=_is_shared(adapts))

  return network


def _conv4(make: Callable[..., networks.Conv4]) -> Callable[..., networks.Network]:
  def network(
    num_outputs: int,
    width: int | None = None,
    layers: Sequence[str] | None = None,
    strides: int | None = None,
    readout: Literal["mean", "flatten"] | None = None,
    hidden: Sequence[int] | None = None,
    conv_bias: bool | None = None,
    norm: Literal["batch", "group", "layer"] | None = None,
    norm_groups: int | None = None,
    norm_scale: bool | None = None,
    head_init: Literal["normal", "xavier"] | None = None,
    bias_init: Literal["zeros"] | None = None,
    dtype: Dtype | None = None,
    lowering: conv.Lowering | None = None,
    adapts: str = "all",
    warp: dict = NO_WARP,
  ) -> networks.Network:
    overrides = schema.given(
      {
        "width": width,
        "layers": layers and tuple(layers),
        "strides": strides,
        "readout": readout,
        "hidden": hidden if hidden is None else tuple(hidden),
        "conv_bias": conv_bias,
        "norm": norm,
        "norm_groups": norm_groups,
        "norm_scale": norm_scale,
        "head_init": head_init and HEAD_INITS[head_init],
      }
    )
    layer = warp_settings.spec(warp)
    if bias_init == "zeros":  # of the warp-layers too
      overrides, layer = {**overrides, "bias_init": None}, layer and layer._replace(bias_init=None)
    module = make(num_classes=num_outputs, warp=layer, **overrides, **_compute(dtype, lowering))
    return networks.from_linen(module, is_shared=_is_shared(adapts))

  return network


def _resnet12(
  num_outputs: int,
  widths: Sequence[int] = (64, 160, 320, 640),
  drop_rate: float = 0.0,
  block_size: int = 5,
  norm: Literal["batch", "group", "layer"] = "batch",
  norm_groups: int = 8,
  dtype: Dtype | None = None,
  lowering: conv.Lowering | None = None,
  adapts: str = "all",
  warp: dict = NO_WARP,
) -> networks.Network:
  options: dict[str, Any] = {"warp": warp_settings.spec(warp), **_compute(dtype, lowering)}
  module = networks.ResNet12(num_outputs, tuple(widths), drop_rate, block_size, norm, norm_groups, **options)
  return networks.from_linen(module, is_shared=_is_shared(adapts), takes_key=drop_rate > 0)


def _compute(dtype: Dtype | None, lowering: conv.Lowering | None = None) -> dict[str, Any]:
  """How a network computes, as arguments of its module; what is not given is the module's."""
  convolution = lowering and partial(conv.conv_general_dilated, lowering=lowering)
  return schema.given({"dtype": dtype and jnp.dtype(dtype), "conv_general_dilated": convolution})


def _is_shared(adapts: str) -> Callable[[tuple[Any, ...]], bool] | None:
  stays = schema.choose("config.network.adapts", adapts, ADAPTS)
  return stays and (lambda path: stays(path) or partition.is_warp(path))


NETWORKS: dict[str, Callable[..., networks.Network]] = {
  "mlp": _mlp(networks.MLP),
  "maml_sinusoid": _mlp(presets.maml_sinusoid),
  "reptile_sinusoid": _mlp(presets.reptile_sinusoid),
  "maml_omniglot": _conv4(presets.maml_omniglot),
  "meta_sgd_omniglot": _conv4(presets.meta_sgd_omniglot),
  "reptile_omniglot": _conv4(presets.reptile_omniglot),
  "imaml_omniglot": _conv4(presets.imaml_omniglot),
  "warpgrad_omniglot": _conv4(presets.warpgrad_omniglot),
  "maml_mini_imagenet": _conv4(presets.maml_mini_imagenet),
  "mamlpp_mini_imagenet": _conv4(presets.mamlpp_mini_imagenet),
  "reptile_mini_imagenet": _conv4(presets.reptile_mini_imagenet),
  "warpgrad_mini_imagenet": _conv4(presets.warpgrad_mini_imagenet),
  "resnet12": _resnet12,
  "multi_headed_omniglot": multi_shot.multi_headed,
  "plane_warp": synthetic.plane_warp,
  "displacement": optimizees.displacement,
  "gaussian_mlp": reinforcement.gaussian_mlp,
  "rnn": reinforcement.recurrent_network(networks.RNN),
  "warp_rnn": reinforcement.recurrent_network(networks.WarpRNN),
  "hebbian": reinforcement.recurrent_network(networks.HebbianRNN),
}
