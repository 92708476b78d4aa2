"""From a flax module to the two pytrees and the pure function that everything else depends on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from warpjax import partition
from warpjax.networks import masked
from warpjax.networks.batch_norm import BATCH_STATS, linen_apply_with_stats
from warpjax.types import Apply, ApplyWithStats, Params, PyTree


class Network(NamedTuple):
  """A network as a pair of pure functions. Anything with the first two is a network; flax is not needed.

  Attributes:
    init: `(key, x) -> (params, shared)`; `shared` is `()` when nothing is shared.
    apply: `(params, shared, x) -> outputs`, pure and deterministic; batch norm uses the statistics of its batch.
    apply_with_stats: `(params, shared, stats, x) -> (outputs, stats)`: batch norm under statistics that are given, or,
      for None, its batch's own, as `apply`; it returns those that it used, `{}` where there is no batch norm. None
      for a network that has none, or whose are nobody else's business.
    takes_key: Whether x may be a pair `(images, key data)`, under which the network draws chances (dropout).

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
  inference_kwargs: Mapping[str, Any] = MappingProxyType({"use_running_average": True}),
  **call_kwargs: Any,
) -> Network:
  """Adapts a flax linen module: modules named `warp*` go to `shared`, all else to `params`.

  Batch norm uses the statistics of the batch it sees, which must be the module's setting (`use_running_average=False`);
  updates of its running averages are dropped, so that `apply` is pure.

  Args:
    module: Any linen module whose only collections are `params` and `batch_stats`.
    is_shared: `(path) -> bool` over the path of each parameter, in place of the names; it may leave no side empty.
    expect_shared: True: fail at `init` when nothing is shared; False: fail when something is. Default: True if
      `is_shared` is given, else either is fine.
    inference_kwargs: What to call the module with, over `call_kwargs`, for batch norm to use given statistics.
    **call_kwargs: Passed to the module's `__call__` besides `x`, e.g. `train=True`.

  Returns:
    A `Network`.

  Raises:
    ValueError: from `init`, when the split leaves a side empty by mistake, or there are other collections.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = from_linen(nn.Dense(3))
    >>> params, shared = network.init(jax.random.key(0), jnp.ones((4, 2)))
    >>> network.apply(params, shared, jnp.ones((4, 2))).shape, shared
    ((4, 3), ())
  """
  if not isinstance(module, nn.Module):
    raise ValueError(f"module must be an instance of flax.linen.Module, got {module!r}.")
  wanted = expect_shared if expect_shared is not None or is_shared is None else True

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    variables = module.init(key, x, **call_kwargs)
    _check_collections(variables)
    params, shared = partition.split(variables.get("params", {}), is_shared or partition.is_warp)
    _check_split(params, shared, wanted)
    return params, shared

  def apply(params: Params, shared: PyTree, x: jax.Array) -> Any:
    variables = {"params": partition.merge(params, shared)}
    return module.apply(variables, x, mutable=[BATCH_STATS], **call_kwargs)[0]

  with_stats = linen_apply_with_stats(module, call_kwargs, inference_kwargs)
  return Network(init, masked.linen_apply(apply), masked.linen_with_stats(with_stats))


class WarpParam(nnx.Param):
  """An nnx parameter that tasks share; a stock layer's is retyped by `layer.kernel = WarpParam(layer.kernel[...])`."""


def from_nnx(
  factory: Callable[[nnx.Rngs], nnx.Module],
  warp_param: type[nnx.Variable] = WarpParam,
  *,
  expect_shared: bool | None = None,
) -> Network:
  """Adapts a flax nnx module: variables of type `warp_param` go to `shared`, other `nnx.Param`s to `params`.

  Both are plain nested dicts. The module is put in training mode, so batch norm uses the statistics of its batch and
  `apply` is pure; updates of running averages are dropped.

  Args:
    factory: `(rngs) -> module`; `init` calls it with `nnx.Rngs(key)`.
    warp_param: The variable type of what is shared.
    expect_shared: As in `from_linen`. Default: either is fine.

  Returns:
    A `Network`.

  Raises:
    ValueError: if `factory` is a module; from `init`, when the split leaves a side empty by mistake, or the module has
      variables that are neither parameters nor batch statistics (dropout keys, say).

  Example:
    >>> import jax, jax.numpy as jnp
    >>> network = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params, shared = network.init(jax.random.key(0), jnp.ones((4, 2)))
    >>> network.apply(params, shared, jnp.ones((4, 2))).shape, shared
    ((4, 3), ())
  """
  if isinstance(factory, nnx.Module) or not callable(factory):
    raise ValueError(f"factory must be a function (rngs) -> nnx.Module, got {type(factory).__name__}; pass a lambda.")

  def build(key: jax.Array) -> nnx.Module:
    module = factory(nnx.Rngs(key))
    module.train()
    return module

  # The most specific filter comes first: WarpParam is a Param, and the first match takes a variable.
  filters = (warp_param, nnx.Param, nnx.BatchStat, ...)

  @functools.cache
  def skeleton() -> Any:
    return nnx.split(nnx.eval_shape(lambda: build(jax.random.key(0))), *filters)

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    del x
    states: Any = nnx.split(build(key), *filters)
    _check_variables(states[-1])
    shared, params = (nnx.to_pure_dict(state) or () for state in states[1:3])
    _check_split(params, shared, expect_shared)
    return params, shared

  def bind(params: Params, shared: PyTree, stats: PyTree) -> Any:
    graph, shared_state, params_state, statistics, rest = skeleton()
    statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), statistics)
    filled = statistics if stats is None else _fill(statistics, stats)
    return nnx.merge(graph, _fill(shared_state, shared), _fill(params_state, params), filled, rest)

  def apply(params: Params, shared: PyTree, x: jax.Array) -> Any:
    module = bind(params, shared, None)
    return module(masked.nnx_inputs(module, x, own_stats=True))

  def apply_with_stats(params: Params, shared: PyTree, stats: PyTree, x: jax.Array) -> tuple[Any, PyTree]:
    module = bind(params, shared, stats)
    x = masked.nnx_inputs(module, x, own_stats=stats is None)
    if stats is not None:
      module.eval()
      return module(x), stats
    for _, node in nnx.iter_modules(module):
      if isinstance(node, nnx.BatchNorm):
        node.momentum = 0.0  # the average over this batch alone
    return module(x), nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

  return Network(init, apply, apply_with_stats)


def _fill(state: Any, values: PyTree) -> Any:
  """Returns the nnx state of `state`'s structure that holds `values`, a plain nested dict."""
  filled = jax.tree.map(lambda leaf: leaf, state)
  nnx.replace_by_pure_dict(filled, values or {})
  return filled


def _check_variables(rest: Any) -> None:
  kinds = sorted({type(leaf).__name__ for _, leaf in nnx.to_flat_state(rest)})
  if kinds:
    raise ValueError(f"module has variables of types {kinds}; only parameters and batch statistics are allowed.")


def _check_collections(variables: Any) -> None:
  extra = sorted(set(variables) - {"params", BATCH_STATS})
  if extra:
    raise ValueError(f"module has variables in the collections {extra}; only 'params' and '{BATCH_STATS}' are allowed.")


def _check_split(params: Params, shared: PyTree, wanted: bool | None) -> None:
  num_params, num_shared = len(jax.tree.leaves(params)), len(jax.tree.leaves(shared))
  counts = f"got {num_params} parameter arrays that adapt and {num_shared} shared"
  if num_params == 0:
    raise ValueError(
      f"the split leaves nothing that adapts: {counts}; is_shared must be False for some parameter path."
    )
  if wanted is True and num_shared == 0:
    raise ValueError(
      f"the split leaves nothing shared: {counts}; name modules 'warp*' (or type them WarpParam), make is_shared True "
      "for some parameter path, or pass expect_shared=False."
    )
  if wanted is False and num_shared > 0:
    raise ValueError(f"expect_shared=False, but the split shares something: {counts}.")
