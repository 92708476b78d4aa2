"""A separate estimator for each block of MetaParams."""

from __future__ import annotations

from typing import Any

import jax

from warpjax.meta_gradients.trajectory import OneAdaptation, Result, total
from warpjax.types import Aux, MetaGradFn, MetaParams, Task


def blockwise(*, initial: MetaGradFn, shared: MetaGradFn | None = None, rule: MetaGradFn | None = None) -> MetaGradFn:
  """Takes each block's gradient from its own estimator, and value and aux from the estimator of `initial`.

  An estimator made by `along_trajectory` does not adapt again if `initial` is `unrolled` or `along_trajectory` of the
  same inner loop.

  Args:
    initial: Estimates the `initial` block, and every block without an estimator of its own.
    shared: Estimates the `shared` block.
    rule: Estimates the `rule` block.

  Returns:
    A `MetaGradFn`.

  Raises:
    ValueError: if an argument is not a MetaGradFn; an estimator that carries state is not allowed.

  Example:
    >>> import warpjax as wj
    >>> from warpjax.meta_gradients import along_trajectory, unrolled, warp
    >>> inner = wj.InnerLoop(lambda p, s, b: ((p * s - b) ** 2, {}), wj.rules.sgd(0.1), num_steps=3)
    >>> warp_maml = blockwise(initial=unrolled(inner), shared=along_trajectory(inner, warp()))

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equation 13 (the joint objective).
  """
  chosen = {"initial": initial, "shared": shared or initial, "rule": rule or initial}
  for name, estimator in chosen.items():
    if not callable(estimator):
      raise ValueError(f"{name} must be a MetaGradFn; got {type(estimator).__name__}")
  distinct = list(dict.fromkeys(chosen.values()))
  guests = [estimator for estimator in distinct if _can_share(estimator, initial)]
  alone = [estimator for estimator in distinct if estimator not in (initial, *guests)]

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    (value, grads), parts = _together(initial, guests, meta_params, task, key)
    found = {initial: grads, **parts, **{each: each(meta_params, task, key)[1] for each in alone}}
    return value, MetaParams(**{name: getattr(found[each], name) for name, each in chosen.items()})

  return grad_fn


def _can_share(estimator: MetaGradFn, host: MetaGradFn) -> bool:
  if estimator is host or not isinstance(estimator, OneAdaptation) or not isinstance(host, OneAdaptation):
    return False
  return bool(estimator.own) and all(one is other for one, other in zip(estimator.inner, host.inner, strict=True))


def _together(
  host: MetaGradFn, guests: list[Any], meta_params: MetaParams, task: Task, key: jax.Array
) -> tuple[Result, dict[MetaGradFn, MetaParams]]:
  """The host's estimate, and the gradients of its guests."""
  if not isinstance(host, OneAdaptation) or not guests:
    return host(meta_params, task, key), {}
  result, grads = host.run(meta_params, task, key, tuple(part for guest in guests for part in guest.own))
  each = iter(grads)
  return result, {guest: total([next(each) for _ in guest.own]) for guest in guests}
