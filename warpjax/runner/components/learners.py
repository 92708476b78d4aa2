"""The settings of a config's `network` table besides the fields of its module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from warpjax import networks, partition
from warpjax.networks import conv
from warpjax.runner.components import warp as warp_settings
from warpjax.runner.config import schema

NO_WARP: dict[str, Any] = {}
Adapts = Literal["all", "head", "body", "all_but_norm"]
# For each choice of what adapts, the parameters that do not.
SHARED: dict[str, Callable[[tuple[Any, ...]], bool] | None] = {
  "all": None,
  "head": lambda path: path[0] != "head",
  "body": lambda path: path[0] == "head",
  "all_but_norm": lambda path: path[0].startswith("norm"),
}


def learner(
  module: Any,
  adapts: Adapts = "all",
  bias_init: Literal["zeros"] | None = None,
  products: conv.Products = "float32",
  warp: dict = NO_WARP,
) -> networks.Network:
  """A network of a module.

  Args:
    module: A flax module with a field `warp`.
    adapts: The parameters that adapt to a task; warp-layers never adapt.
    bias_init: "zeros" for the biases of all layers, including warp-layers.
    products: "bfloat16" rounds the operands of convolutions or, in an MLP, of dense layers; sums are float32.
    warp: The settings of its warp-layers.
  """
  if products != "float32":
    field = "conv_general_dilated" if hasattr(module, "conv_general_dilated") else "dot_general"
    module = module.clone(**{field: partial(getattr(module, field), products=products)})
  layers = warp_settings.spec(warp)
  if bias_init == "zeros":
    layers = layers and layers._replace(bias_init=None)
    module = module.clone(bias_init=None) if hasattr(module, "bias_init") else module
  stays = SHARED[adapts]
  is_shared = stays and (lambda path: stays(path) or partition.is_warp(path))
  takes_key = getattr(module, "drop_rate", 0) > 0
  return networks.from_linen(module.clone(warp=layers), is_shared=is_shared, takes_key=takes_key)


def convolutional(
  module: Any,
  adapts: Adapts = "all",
  bias_init: Literal["zeros"] | None = None,
  lowering: conv.Lowering | None = None,
  products: conv.Products = "float32",
  warp: dict = NO_WARP,
) -> networks.Network:
  """A network of a module with convolutions.

  Args:
    module: A flax module with fields `warp` and `conv_general_dilated`.
    adapts: The parameters that adapt to a task; warp-layers never adapt.
    bias_init: "zeros" for the biases of all layers, including warp-layers.
    lowering: The lowering of convolutions; the fastest depends on the device.
    products: "bfloat16" rounds the operands of convolutions to bfloat16; sums are float32.
    warp: The settings of its warp-layers.
  """
  if lowering:
    module = module.clone(conv_general_dilated=partial(conv.conv_general_dilated, lowering=lowering))
  return learner(module, adapts, bias_init, products, warp)


def plain(module: Any) -> networks.Network:
  """A network of a module without warp-layers, all of whose parameters adapt."""
  return networks.from_linen(module)


def transformer(
  module: Any, adapts: Literal["last_mlps", "all"] = "last_mlps", warp: dict = NO_WARP
) -> networks.Network:
  """A transformer.

  Args:
    module: A transformer.
    adapts: The parameters that adapt to a task: the MLPs of the last blocks, or all; warp-layers never adapt.
    warp: The settings of the warp-layers around each MLP of the last blocks.
  """
  is_shared = networks.last_mlps(module) if adapts == "last_mlps" else None
  return networks.from_linen(module.clone(warp=warp_settings.spec(warp)), is_shared=is_shared)


_READERS: dict[Any, Callable[..., networks.Network]] = {
  networks.MLP: learner,
  networks.Conv4: convolutional,
  networks.ResNet12: convolutional,
  networks.GaussianMLP: plain,
  networks.Transformer: transformer,
}


def reader(make: Callable[..., Any]) -> Callable[..., networks.Network] | None:
  """The function that turns the module of `make` into a network; None if `make` returns a network."""
  return _READERS.get(schema.called(make))
