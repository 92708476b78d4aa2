"""The networks of a config's `network` table: a preset by name, any of its fields overridden."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments import multi_shot, schema, synthetic
from experiments import warp as warp_settings
from warpjax import networks, partition
from warpjax.networks import presets

NO_WARP: dict[str, Any] = {}
ADAPTS: dict[str, Callable[[tuple[Any, ...]], bool] | None] = {
  "all": None,
  "head": lambda path: path[0] != "head",
  "body": lambda path: path[0] == "head",
  "all_but_norm": lambda path: path[0].startswith("norm"),
}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}
HEAD_INITS = {"normal": jax.nn.initializers.normal(1.0), "xavier": jax.nn.initializers.xavier_uniform()}


def _mlp(make: Callable[..., networks.MLP]) -> Callable[..., networks.Network]:
  def network(
    num_outputs: int,
    features: Sequence[int],
    activation: Literal["relu", "tanh"],
    adapts: str = "all",
    warp: dict = NO_WARP,
  ) -> networks.Network:
    module = make(
      num_outputs=num_outputs,
      features=tuple(features),
      activation=ACTIVATIONS[activation],
      warp=warp_settings.spec(warp),
    )
    return networks.from_linen(module, is_shared=_is_shared(adapts))

  of_preset = make(num_outputs=1)
  activation = next(name for name, function in ACTIVATIONS.items() if function is of_preset.activation)
  return _with_defaults(network, features=tuple(of_preset.features), activation=activation)


def _conv4(make: Callable[..., networks.Conv4]) -> Callable[..., networks.Network]:
  def network(
    num_outputs: int,
    width: int,
    layers: Sequence[str],
    strides: int,
    readout: Literal["mean", "flatten"],
    hidden: Sequence[int],
    conv_bias: bool,
    norm_scale: bool,
    head_init: Literal["preset", "normal", "xavier"] = "preset",
    adapts: str = "all",
    warp: dict = NO_WARP,
  ) -> networks.Network:
    module = make(
      num_classes=num_outputs,
      width=width,
      layers=tuple(layers),
      strides=strides,
      readout=readout,
      hidden=tuple(hidden),
      conv_bias=conv_bias,
      norm_scale=norm_scale,
      warp=warp_settings.spec(warp),
      **({} if head_init == "preset" else {"head_init": HEAD_INITS[head_init]}),
    )
    return networks.from_linen(module, is_shared=_is_shared(adapts))

  of_preset = make(num_classes=1)
  fields = ("width", "layers", "strides", "readout", "hidden", "conv_bias", "norm_scale")
  return _with_defaults(network, **{name: getattr(of_preset, name) for name in fields})


def _with_defaults(function: Callable[..., Any], **defaults: Any) -> Callable[..., Any]:
  """The function with these defaults in its signature, which is what a config is completed from and checked against."""

  def call(*args: Any, **kw: Any) -> Any:
    return function(*args, **{**defaults, **kw})

  signature = inspect.signature(function)
  parameters = [p.replace(default=defaults.get(name, p.default)) for name, p in signature.parameters.items()]
  call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
  call.__annotations__ = function.__annotations__
  return call


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
  "multi_headed_omniglot": multi_shot.multi_headed,
  "plane_warp": synthetic.plane_warp,
}
