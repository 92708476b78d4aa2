"""The flax nnx adapter."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from warpjax.checks import check_key
from warpjax.mistakes import check_takes
from warpjax.networks import masked, probes
from warpjax.networks.adapters import Network, check_split
from warpjax.numerics import is_typed_key
from warpjax.padding import PaddedInputs
from warpjax.types import Params, PyTree


class WarpParam(nnx.Param):
  """An nnx parameter that tasks share; a stock layer's is retyped by `layer.kernel = WarpParam(layer.kernel[...])`."""


def from_nnx(
  factory: Callable[[nnx.Rngs], nnx.Module],
  warp_param: type[nnx.Variable] = WarpParam,
  *,
  expect_shared: bool | None = None,
  takes_key: bool = False,
  inference_kwargs: Mapping[str, Any] = MappingProxyType({}),
  **call_kwargs: Any,
) -> Network:
  """Adapts a flax nnx module: variables of type `warp_param` go to `shared`, other `nnx.Param`s to `params`.

  Both are plain nested dicts. Batch norm is set to training mode, so it uses the statistics of its batch and `apply` is
  pure; updates of running averages are dropped. Random streams of the module are not part of the network's state.
  Padded batches (`padding.Padded`) are an error for a module with `nnx.BatchNorm`. No other layer may mix examples
  then, such as `h - h.mean(0)`: this is not detected.

  Args:
    factory: `(rngs) -> module`; `init` calls it with `nnx.Rngs(key)`.
    warp_param: The variable type of shared parameters.
    expect_shared: As in `from_linen`. Default: either is fine.
    takes_key: For modules with dropout: whether x may be a pair `(inputs, key data)`, from whose key each random stream
      of the module is drawn. The attribute `deterministic` of all its layers is then False, and True without a key.
    inference_kwargs: Arguments, over `call_kwargs`, with which batch norm uses the statistics passed in.
    **call_kwargs: Further arguments of the module's `__call__`, e.g. `train=True`.

  Returns:
    A `Network`.

  Raises:
    ValueError: if `factory` is a module; from `init`, before anything is computed: when the split leaves a side empty
      by mistake, batch norm uses running averages, the module draws random numbers and `takes_key` is False, or it has
      variables that are neither parameters, batch statistics nor random streams.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params, shared = network.init(jax.random.key(0), jnp.ones((4, 2)))
    >>> network.apply(params, shared, jnp.ones((4, 2))).shape, shared
    ((4, 3), ())
  """
  if isinstance(factory, nnx.Module) or not callable(factory):
    raise ValueError(f"factory must be a function (rngs) -> nnx.Module, got {type(factory).__name__}; pass a lambda.")
  if hasattr(factory, "init_with_output"):
    raise ValueError("factory must be a function (rngs) -> nnx.Module; got a linen module, which is for from_linen")
  check_takes("factory", factory, ("rngs",))

  # The most specific filter comes first: WarpParam is a Param, and the first match takes a variable.
  filters = (warp_param, nnx.Param, nnx.BatchStat, nnx.RngState, ...)

  @functools.cache
  def skeleton() -> Any:
    module = nnx.eval_shape(lambda: factory(nnx.Rngs(jax.random.key(0))))
    return type(module), nnx.split(module, *filters)

  def module_of(params: PyTree, shared: PyTree, stats: PyTree, key: jax.Array | None, drops: bool) -> Any:
    graph, shared_state, params_state, statistics, streams, rest = skeleton()[1]
    filled = probes.zeros(statistics) if stats is None else _fill(statistics, stats)
    parts = _fill(shared_state, shared), _fill(params_state, params), filled, _streams(streams, key)
    return _in_mode(nnx.merge(graph, *parts, rest), takes_key, drops)

  def bind(params: Params, shared: PyTree, stats: PyTree, x: Any) -> tuple[Any, Any]:
    plain = masked.plain(x)
    plain, key = probes.split_key(plain) if takes_key else (plain, None)
    module = module_of(params, shared, stats, key, drops=key is not None)
    _check_padded(module, x, own_stats=stats is None)
    return module, plain

  def calls(x: Any) -> probes.Calls:
    kind, (_, shared_state, params_state, statistics, _, rest) = skeleton()
    _check_variables(rest)
    to_zeros = lambda state: nnx.to_pure_dict(probes.zeros(state))

    def run(kwargs: Mapping[str, Any], keyed: bool, stats: PyTree, data: jax.Array) -> PyTree:
      params, shared = to_zeros(params_state), to_zeros(shared_state)
      module = module_of(params, shared, stats, probes.key_of(data), drops=keyed)
      try:
        return module(x, **kwargs)
      except Exception as error:  # flax's error for a missing key does not say how to pass one
        if "rngs" not in kwargs and "rngs" in inspect.signature(kind.__call__).parameters:
          raise ValueError(
            f"{kind.__name__}.__call__ takes rngs, which a Network does not pass on: give each layer its own where it "
            "is made, such as nnx.Dropout(0.5, rngs=rngs)"
          ) from error
        raise

    stats = jax.eval_shape(lambda: to_zeros(statistics))
    return probes.Calls("from_nnx", kind, call_kwargs, run, stats)

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    check_key(key)
    traced = calls(probes.split_key(x)[0] if takes_key else x)
    probes.check_arguments("from_nnx", traced.module, call_kwargs)
    probes.check_calls(traced, takes_key)
    states: Any = nnx.split(factory(nnx.Rngs(key)), *filters)
    shared, params = (nnx.to_pure_dict(state) or () for state in states[1:3])
    check_split(params, shared, expect_shared)
    return params, shared

  def apply(params: Params, shared: PyTree, x: jax.Array) -> Any:
    module, x = bind(params, shared, None, x)
    return module(x, **call_kwargs)

  def apply_with_stats(params: Params, shared: PyTree, stats: PyTree, x: jax.Array) -> tuple[Any, PyTree]:
    module, x = bind(params, shared, stats, x)
    if stats is not None:
      module.set_attributes(use_running_average=True, raise_if_not_found=False)
      return module(x, **{**call_kwargs, **inference_kwargs}), stats
    for _, node in nnx.iter_modules(module):
      if isinstance(node, nnx.BatchNorm):
        node.momentum = 0.0  # the average over only this batch
    return module(x, **call_kwargs), nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

  return Network(init, apply, apply_with_stats, takes_key)


def _in_mode(module: Any, takes_key: bool, drops: bool) -> Any:
  """The module, with batch norm in training mode, and dropout on if there is a key, or as its layers were made."""
  module.set_attributes(use_running_average=False, raise_if_not_found=False)
  for _, node in nnx.iter_modules(module):
    if hasattr(node, "deterministic") and (takes_key or node.deterministic is None):
      setattr(node, "deterministic", takes_key and not drops)  # noqa: B010
    # The rate too: an argument `deterministic` of the call beats the attribute.
    if takes_key and not drops and isinstance(node, nnx.Dropout):
      node.rate = 0.0
    if takes_key and not drops and isinstance(node, nnx.MultiHeadAttention):
      node.dropout_rate = 0.0
  return module


def _streams(streams: Any, key: jax.Array | None) -> Any:
  """The module's random streams, each with its own key; without a key none of them is read."""
  leaves, treedef = jax.tree.flatten(streams)
  of = lambda index: jax.random.fold_in(jax.random.key(0) if key is None else key, index)
  one = lambda i, leaf: jax.random.split(of(i), leaf.shape) if is_typed_key(leaf) else jnp.zeros(leaf.shape, leaf.dtype)
  return jax.tree.unflatten(treedef, [one(i, leaf) for i, leaf in enumerate(leaves)])


def _fill(state: Any, values: PyTree) -> Any:
  """Returns the nnx state of `state`'s structure that holds `values`, a plain nested dict."""
  filled = jax.tree.map(lambda leaf: leaf, state)
  nnx.replace_by_pure_dict(filled, values or {})
  return filled


def _check_variables(rest: Any) -> None:
  kinds = sorted({type(leaf).__name__ for _, leaf in nnx.to_flat_state(rest)})
  if kinds:
    raise ValueError(
      f"module has variables of types {kinds}; only parameters, batch statistics and random streams are allowed."
    )


def _check_padded(module: nnx.Module, x: Any, own_stats: bool) -> None:
  """Raises a ValueError for a padded batch where an nnx batch norm would use the batch's statistics."""
  padded = isinstance(x, PaddedInputs)
  if padded and own_stats and any(isinstance(node, nnx.BatchNorm) for _, node in nnx.iter_modules(module)):
    raise ValueError(
      "padded batches must not meet an nnx.BatchNorm, whose statistics would have padding in them; use "
      "networks.from_linen, which masks it, or another norm"
    )
