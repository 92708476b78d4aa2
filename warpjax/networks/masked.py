"""Padded batches through flax modules: batch norm ignores padding."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from warpjax.padding import PaddedInputs
from warpjax.types import Apply, ApplyWithStats, Params, PyTree


def linen_apply(apply: Apply) -> Apply:
  """`apply` of a linen module, for x and for `PaddedInputs`, where every `flax.linen.BatchNorm` is masked."""

  def masked_apply(params: Params, shared: PyTree, x: Any) -> Any:
    with _masked(x) as plain:
      return apply(params, shared, plain)

  return masked_apply


def linen_with_stats(apply_with_stats: ApplyWithStats) -> ApplyWithStats:
  """`linen_apply` with statistics passed in; it returns the statistics of the real examples."""

  def masked_apply(params: Params, shared: PyTree, stats: PyTree, x: Any) -> tuple[Any, PyTree]:
    with _masked(x) as plain:
      return apply_with_stats(params, shared, stats, plain)

  return masked_apply


def plain(x: Any) -> Any:
  """x without the weights of a padded batch."""
  return x.x if isinstance(x, PaddedInputs) else x


@contextlib.contextmanager
def _masked(x: Any) -> Iterator[Any]:
  if not isinstance(x, PaddedInputs):
    yield x
    return
  real = x.weights > 0

  def add_mask(next_fun: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
      kwargs = {**kwargs, "mask": _mask(real, args[0] if args else kwargs["x"], kwargs.get("mask"))}
    return next_fun(*args, **kwargs)

  with nn.intercept_methods(add_mask):
    yield x.x


def _mask(real: jax.Array, x: jax.Array, own: jax.Array | None) -> jax.Array:
  if x.shape[:1] != real.shape:
    raise ValueError(
      f"batch norm on a padded batch must see its {real.shape[0]} examples on the first axis; got the shape {x.shape}"
    )
  mask = jnp.expand_dims(real, range(1, x.ndim))
  return mask if own is None else mask & own
