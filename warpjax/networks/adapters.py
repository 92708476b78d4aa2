"""Adapters from flax modules to networks: two pytrees of parameters and a pure function."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax

from warpjax import partition
from warpjax.checks import check_key
from warpjax.mistakes import short
from warpjax.networks import masked, probes
from warpjax.networks.statistics import BATCH_STATS, linen_apply_with_stats
from warpjax.types import Apply, ApplyWithStats, Params, PyTree


class Network(NamedTuple):
  """A network as a pair of pure functions, `init` and `apply`; flax is not needed.

  Attributes:
    init: `(key, x) -> (params, shared)`; `shared` is `()` when nothing is shared.
    apply: `(params, shared, x) -> outputs`, pure and deterministic; batch norm uses the statistics of its batch.
    apply_with_stats: `(params, shared, stats, x) -> (outputs, stats)`: batch norm with statistics passed in, or,
      for None, with those of its batch, as `apply`; returns the statistics that it used, `{}` without batch norm. None
      for a network without batch norm, or one that does not return its statistics.
    takes_key: Whether x may be a pair `(inputs, key data)`, as `tasks.augment.keyed` makes: the network then draws its
      dropout masks from that key. It drops nothing for an x without a key.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> line = Network(init=lambda key, x: (jnp.zeros(x.shape[-1:]), ()), apply=lambda params, shared, x: x @ params)
    >>> params, shared = line.init(jax.random.key(0), jnp.ones((4, 2)))
    >>> line.apply(params, shared, jnp.ones((4, 2))).shape
    (4,)
  """

  init: Callable[[jax.Array, jax.Array], tuple[Params, PyTree]]
  apply: Apply
  apply_with_stats: ApplyWithStats | None = None
  takes_key: bool = False


def from_linen(
  module: nn.Module,
  *,
  is_shared: partition.IsShared | None = None,
  expect_shared: bool | None = None,
  takes_key: bool = False,
  inference_kwargs: Mapping[str, Any] = MappingProxyType({"use_running_average": True}),
  **call_kwargs: Any,
) -> Network:
  """Adapts a flax linen module: modules named `warp*` go to `shared`, all else to `params`.

  Batch norm uses the statistics of the batch it sees, which must be the module's setting (`use_running_average=False`);
  updates of its running averages are dropped, so that `apply` is pure. For padded batches (`padding.Padded`) batch norm
  ignores padding. No other layer may mix examples then, such as `h - h.mean(0)`: this is not detected.

  Args:
    module: Any linen module whose only collections are `params` and `batch_stats`.
    is_shared: `(path) -> bool` over the path of each parameter, instead of the names; no side may be empty.
    expect_shared: True: fail at `init` when nothing is shared; False: fail when something is. Default: True if
      `is_shared` is given, else either is fine.
    takes_key: For modules with dropout: whether x may be a pair `(inputs, key data)`. The key is flax's `"dropout"`
      stream; other streams are folded from it. Without a key, `nn.Dropout` and attention drop nothing.
    inference_kwargs: Arguments, over `call_kwargs`, with which batch norm uses the statistics passed in.
    **call_kwargs: Further arguments of the module's `__call__`, e.g. `train=True`.

  Returns:
    A `Network`.

  Raises:
    ValueError: from `init`, before anything is computed: when the split leaves a side empty by mistake, there are other
      collections, batch norm uses running averages, or the module draws random numbers and `takes_key` is False.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = from_linen(nn.Dense(3))
    >>> params, shared = network.init(jax.random.key(0), jnp.ones((4, 2)))
    >>> network.apply(params, shared, jnp.ones((4, 2))).shape, shared
    ((4, 3), ())
  """
  if not isinstance(module, nn.Module):
    raise ValueError(f"module must be an instance of flax.linen.Module; got {_kind(module)}.")
  wanted = expect_shared if expect_shared is not None or is_shared is None else True

  def call(variables: PyTree, x: Any, **kwargs: Any) -> Any:
    x, key = probes.split_key(x) if takes_key else (x, None)
    return _apply(module, variables, x, key, drops=not takes_key or key is not None, **kwargs)

  def check(key: jax.Array, x: Any) -> None:
    probes.check_arguments("from_linen", type(module), call_kwargs)
    shapes = jax.eval_shape(lambda: module.init(key, x, **call_kwargs))
    _check_collections(shapes)
    probes.check_calls(_calls(module, call_kwargs, shapes, x), takes_key)

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    check_key(key)
    x = probes.split_key(x)[0] if takes_key else x
    check(key, x)
    variables = module.init(key, x, **call_kwargs)
    params, shared = partition.split(variables.get("params", {}), is_shared or partition.is_warp)
    check_split(params, shared, wanted)
    return params, shared

  def apply(params: Params, shared: PyTree, x: jax.Array) -> Any:
    return call({"params": partition.merge(params, shared)}, x, mutable=[BATCH_STATS], **call_kwargs)[0]

  with_stats = linen_apply_with_stats(module, call, call_kwargs, inference_kwargs)
  return Network(init, masked.linen_apply(apply), masked.linen_with_stats(with_stats), takes_key)


def _apply(module: nn.Module, variables: PyTree, x: Any, key: jax.Array | None, drops: bool, **kwargs: Any) -> Any:
  # Streams of other names than "dropout" fall back on flax's "params".
  rngs = None if key is None else {"dropout": key, "params": jax.random.fold_in(key, 1)}
  with contextlib.nullcontext() if drops else nn.intercept_methods(_drop_nothing):
    return module.apply(variables, x, rngs=rngs, **kwargs)


def _drop_nothing(next_fun: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
  """Turns dropout off by itself: the flag that would do so often chooses batch norm's statistics too."""
  layer = context.module
  if context.method_name != "__call__" or not isinstance(layer, nn.Dropout | nn.MultiHeadDotProductAttention):
    return next_fun(*args, **kwargs)
  if isinstance(layer, nn.Dropout):
    return args[0] if args else kwargs["inputs"]
  rate = layer.dropout_rate
  object.__setattr__(layer, "dropout_rate", 0.0)  # flax freezes its modules, and refuses `deterministic` given twice
  try:
    return next_fun(*args, **kwargs)
  finally:
    object.__setattr__(layer, "dropout_rate", rate)


def _kind(module: Any) -> str:
  if isinstance(module, type):
    return f"the class {module.__name__}; pass an instance"
  nnx = sys.modules.get("flax.nnx")  # imported if any nnx module exists
  is_nnx = nnx is not None and isinstance(module, nnx.Module)
  return short(module) + ("; pass from_nnx(lambda rngs: ...)" if is_nnx else "")


def _calls(module: nn.Module, call_kwargs: Mapping[str, Any], shapes: Any, x: Any) -> probes.Calls:
  """How the module is called, for tracing, with zeros as its parameters."""

  def run(kwargs: Mapping[str, Any], keyed: bool, stats: PyTree, data: jax.Array) -> PyTree:
    variables = {"params": probes.zeros(shapes.get("params", {})), **({BATCH_STATS: stats} if stats else {})}
    key = probes.key_of(data) if keyed else None
    try:
      return _apply(module, variables, x, key, drops=keyed, mutable=[BATCH_STATS], **kwargs)[0]
    except flax.errors.InvalidRngError:
      return data  # it needs a key and has none

  return probes.Calls("from_linen", type(module), call_kwargs, run, shapes.get(BATCH_STATS, {}))


def _check_collections(variables: Any) -> None:
  extra = sorted(set(variables) - {"params", BATCH_STATS})
  if extra:
    raise ValueError(f"module has variables in the collections {extra}; only 'params' and '{BATCH_STATS}' are allowed.")


def check_split(params: Params, shared: PyTree, wanted: bool | None) -> None:
  """Raises a ValueError for a split with nothing to adapt, or with shared parameters that are not `wanted`."""
  num_params, num_shared = len(jax.tree.leaves(params)), len(jax.tree.leaves(shared))
  counts = f"got {num_params} parameter arrays that adapt and {num_shared} shared"
  if num_params == 0:
    raise ValueError(
      f"the split of the network leaves nothing that adapts: {counts}; is_shared must be False for some parameter path."
    )
  if wanted is True and num_shared == 0:
    raise ValueError(
      f"the split of the network leaves nothing shared: {counts}; name modules 'warp*' (or type them WarpParam), make "
      "is_shared True for some parameter path, or pass expect_shared=False."
    )
  if wanted is False and num_shared > 0:
    raise ValueError(f"expect_shared=False, but the split of the network shares something: {counts}.")
