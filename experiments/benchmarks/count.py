"""Counts the gradients and Hessian-vector products that an estimator evaluates, as it runs."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax

from warpjax.types import Aux, Batch, LossFn, Params, PyTree

Counter = collections.Counter
Mark = Callable[[jax.Array], jax.Array]
_MOST = 2  # a third derivative counts as a second


def counted(loss_fn: LossFn, counter: Counter) -> LossFn:
  """The loss, which counts each evaluation in `counter` by the order of the derivative that needs it.

  0 is a value alone, 1 a gradient (or a directional derivative), 2 a gradient together with a Hessian-vector product.
  An evaluation under `vmap` counts once for each element. `totals` reads the counter.
  """
  marks = [_mark(counter, _MOST, None)]
  for order in reversed(range(_MOST)):
    marks.append(_mark(counter, order, marks[-1]))

  def loss(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
    value, aux = loss_fn(params, shared, batch)
    return marks[-1](value), aux

  return loss


def _mark(counter: Counter, order: int, above: Mark | None) -> Mark:
  """The identity. It counts as `order`, or, where it is differentiated, as the mark above."""

  def count(_: jax.Array) -> None:
    counter[order] += 1

  def identity(x: jax.Array) -> jax.Array:
    jax.debug.callback(count, x)
    return x

  if above is None:
    return identity
  mark: Any = jax.custom_jvp(identity)
  mark.defjvp(lambda primals, tangents: (above(primals[0]), tangents[0]))
  return mark


def totals(counter: Counter) -> dict[str, int]:
  """`gradients` (with a Hessian-vector product or without) and `hvps`; to be called once the work is done."""
  jax.effects_barrier()
  return {"gradients": counter[1] + counter[2], "hvps": counter[2]}
