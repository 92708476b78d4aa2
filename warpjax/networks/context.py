"""CAVIA: a few context parameters adapt to a task, and change some of the network's parameters, which are shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.networks.adapters import Network, from_linen
from warpjax.networks.by_name import HeadInit
from warpjax.networks.conv4 import Conv4
from warpjax.networks.initializers import torch_bias, torch_uniform
from warpjax.networks.mlp import MLP
from warpjax.types import Params, PyTree


class Modulation(NamedTuple):
  """How context parameters change the parameters of a network.

  Attributes:
    init: `(key, params) -> (context, weights)`: the context that tasks start from, and the weights of the modulation,
      which are shared; `()` for none.
    apply: `(context, weights, params) -> params`.
  """

  init: Callable[[jax.Array, Params], tuple[PyTree, PyTree]]
  apply: Callable[[PyTree, PyTree, Params], Params]


def with_context(network: Network, modulation: Modulation) -> Network:
  """The network `f(modulation(context, params), x)`: the context adapts to a task, and all else is shared.

  Args:
    network: Any network.
    modulation: The modulation by the context, such as `film("dense_0", 5)`.

  Returns:
    A `Network`. Its task parameters are a dict with `context`. Its shared parameters are a dict with `params` and
    `shared`, the two sides of `network`, and `weights`, those of the modulation.

  Raises:
    ValueError: when an argument has another type.

  Example:
    >>> network = with_context(from_linen(MLP((8,))), film("dense_0", 5))
    >>> params, shared = network.init(jax.random.key(0), jnp.ones((4, 1)))
    >>> params["context"].tolist(), network.apply(params, shared, jnp.ones((4, 1))).shape
    ([0.0, 0.0, 0.0, 0.0, 0.0], (4, 1))

  Reference:
    Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, arXiv 1810.03642, section 3.
  """
  for name, value, kind in (("network", network, Network), ("modulation", modulation, Modulation)):
    if not isinstance(value, kind):
      raise ValueError(f"{name} must be a {kind.__name__}; got {type(value).__name__}")

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    params, shared = network.init(key, x)
    context, weights = modulation.init(jax.random.fold_in(key, 1), params)
    return {"context": context}, {"params": params, "shared": shared, "weights": weights}

  def modulated(params: Params, shared: PyTree) -> Params:
    return modulation.apply(params["context"], shared["weights"], shared["params"])

  def apply(params: Params, shared: PyTree, x: jax.Array) -> Any:
    return network.apply(modulated(params, shared), shared["shared"], x)

  of_network = network.apply_with_stats

  def apply_with_stats(params: Params, shared: PyTree, stats: PyTree, x: jax.Array) -> tuple[Any, PyTree]:
    assert of_network is not None
    return of_network(modulated(params, shared), shared["shared"], stats, x)

  return Network(init, apply, apply_with_stats if of_network else None, network.takes_key)


def film(layer: str, size: int) -> Modulation:
  """FiLM of one layer: its bias becomes `gamma (.) bias + context @ B`, its scale `gamma (.) scale` if it has one.

  `gamma = 1 + context @ A` if there is a scale, as in a batch norm, and 1 otherwise. The outputs h of the layer become
  `gamma (.) h + beta`. Without a scale this equals further inputs of a dense layer, which are the context parameters.

  Args:
    layer: The name of a module with a vector `bias`.
    size: Number of context parameters, which start at zero.

  Returns:
    A `Modulation`; its weights are `shift`, B, and `scale`, A, both `[size, channels]`.

  Raises:
    ValueError: when `size` is below 1; from `init`, when the network has no such layer.

  Example:
    >>> context, weights = film("norm", 3).init(jax.random.key(0), {"norm": {"bias": jnp.ones(2)}})
    >>> context.shape, weights["shift"].shape
    ((3,), (3, 2))

  Reference:
    Zintgraf et al. 2019, arXiv 1810.03642, section 3, and its released code; FiLM: Perez et al. 2018, arXiv 1709.07871.
  """
  check_count("size", size)

  def init(key: jax.Array, params: Params) -> tuple[jax.Array, PyTree]:
    if layer not in _with_bias(params):
      raise ValueError(f"layer must be a module with a bias, one of {', '.join(_with_bias(params))}; got {layer!r}")
    leaves = {"shift": params[layer]["bias"], "scale": params[layer].get("scale")}
    keys = jax.random.split(key)
    draw = lambda key, leaf: torch_uniform(key, (size, *leaf.shape), leaf.dtype)
    weights = {name: draw(k, leaf) for k, (name, leaf) in zip(keys, leaves.items(), strict=True) if leaf is not None}
    return jnp.zeros(size, leaves["shift"].dtype), weights

  def apply(context: jax.Array, weights: PyTree, params: Params) -> Params:
    own = params[layer]
    shift = context @ weights["shift"]
    if "scale" not in weights:
      return {**params, layer: {**own, "bias": own["bias"] + shift}}
    gamma = 1 + context @ weights["scale"]
    return {**params, layer: {**own, "bias": gamma * own["bias"] + shift, "scale": gamma * own["scale"]}}

  return Modulation(init, apply)


def _with_bias(params: Params) -> list[str]:
  names = params if isinstance(params, dict) else {}
  return [name for name, own in names.items() if isinstance(own, dict) and "bias" in own]


def cavia_sinusoid(num_outputs: int = 1, features: Sequence[int] = (40, 40), size: int = 5) -> Network:
  """CAVIA's network for sine waves: an MLP whose context parameters are further inputs.

  Args:
    num_outputs: Width of the head.
    features: Width of each hidden layer.
    size: Number of context parameters.
  """
  return with_context(
    from_linen(MLP(features, num_outputs, kernel_init=torch_uniform, bias_init=torch_bias)), film("dense_0", size)
  )


def cavia_omniglot(
  num_classes: int = 5, width: int = 64, size: int = 100, layer: str = "norm_2", head_init: HeadInit = "normal"
) -> Network:
  """MAML's network for Omniglot with scales in its batch norms, one of which has FiLM.

  Args:
    num_classes: Width of the head.
    width: Filters in each convolution.
    size: Number of context parameters.
    layer: The layer that they change.
    head_init: Initializer of the head's kernel.
  """
  return with_context(from_linen(Conv4(num_classes, width, norm_scale=True, head_init=head_init)), film(layer, size))
