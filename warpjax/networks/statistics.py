"""Batch norm under statistics passed in, and returned, explicitly."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from warpjax import partition
from warpjax.types import ApplyWithStats, Params, PyTree

BATCH_STATS = "batch_stats"


def linen_apply_with_stats(
  module: nn.Module,
  call: Callable[..., Any],
  call_kwargs: Mapping[str, Any],
  inference_kwargs: Mapping[str, Any],
) -> ApplyWithStats:
  """The module with statistics passed in; `call` is its `apply`, `(variables, x, **kwargs)`; see `from_linen`."""

  def apply_with_stats(params: Params, shared: PyTree, stats: PyTree, x: jax.Array) -> tuple[Any, PyTree]:
    variables = {"params": partition.merge(params, shared)}
    if stats is None:
      return _with_own_stats(functools.partial(call, mutable=[BATCH_STATS], **call_kwargs), variables, x)
    if not jax.tree.leaves(stats):
      return call(variables, x, **call_kwargs), stats
    _check_arguments(module, inference_kwargs)
    return call({**variables, BATCH_STATS: stats}, x, **{**call_kwargs, **inference_kwargs}), stats

  return apply_with_stats


def _with_own_stats(call: Callable[..., Any], variables: PyTree, x: jax.Array) -> tuple[Any, PyTree]:
  """Flax only returns moving averages: this one starts at zero, has one pass, and is divided by its weight."""
  kept: dict[tuple[str, ...], float] = {}

  def record(next_fun: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
      path = context.module.path
      kept[path] = kept.get(path, 1.0) * _momentum(context.module, args, kwargs)
    return next_fun(*args, **kwargs)

  def apply(variables: PyTree) -> tuple[Any, PyTree]:
    outputs, updated = call(variables, x)
    return outputs, updated.get(BATCH_STATS, {})

  with nn.intercept_methods(record):
    shapes = jax.eval_shape(apply, variables)[1]
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  outputs, averages = apply({**variables, BATCH_STATS: zeros})
  flat = traverse_util.flatten_dict(averages)
  if unknown := sorted({path[:-1] for path in flat} - kept.keys()):
    raise ValueError(f"module must keep statistics only in flax.linen.BatchNorm; got others in {unknown}.")
  return outputs, traverse_util.unflatten_dict({path: leaf / (1 - kept[path[:-1]]) for path, leaf in flat.items()})


def _momentum(norm: nn.BatchNorm, args: tuple, kwargs: Mapping[str, Any]) -> float:
  argument = args[1] if len(args) > 1 else kwargs.get("use_running_average")
  if norm.use_running_average if argument is None else argument:
    raise ValueError(f"batch norm {norm.name!r} must use its batch's statistics; got use_running_average=True.")
  if not 0 <= norm.momentum < 1:
    raise ValueError(f"momentum of batch norm {norm.name!r} must be at least 0 and below 1; got {norm.momentum}.")
  return norm.momentum


def _check_arguments(module: nn.Module, inference_kwargs: Mapping[str, Any]) -> None:
  parameters = inspect.signature(type(module).__call__).parameters
  if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
    return
  if missing := sorted(set(inference_kwargs) - set(parameters)):
    raise ValueError(
      f"{type(module).__name__}.__call__ has no argument {missing}, by which batch norm would use given statistics; "
      "name its own: from_linen(module, inference_kwargs={'train': False})."
    )
