"""A scan that keeps a fixed number of its states and computes the others again: binomial checkpointing.

The schedule is known before anything compiles, so that the program has one copy of the step and one of its derivative,
whatever the number of steps.

Reference: Griewank, Walther 2000, "Algorithm 799: revolve"; Siskind, Pearlmutter 2018, arXiv 1708.06799.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.differentiation import is_inexact, is_primal, lifted, materialised
from warpjax.types import PyTree

Body = Callable[[PyTree, PyTree], PyTree]


class Leg(NamedTuple):
  """One leg of the backward sweep, which computes the state before one step again.

  Attributes:
    slot: The snapshot that it starts from.
    start: The step of this snapshot.
    stores: The steps at which it stores snapshots, in the slots that follow.
  """

  slot: int
  start: int
  stores: tuple[int, ...] = ()


def schedule(num_steps: int, snapshots: int) -> list[Leg]:
  """The legs of a backward sweep, for the last step first; the fewest steps are computed again.

  Args:
    num_steps: N, at least 1.
    snapshots: States kept at once, the first one among them; at least 1.

  Returns:
    N legs. The first one is the forward sweep.

  Example:
    >>> [tuple(leg) for leg in schedule(3, 2)]
    [(0, 0, (1,)), (1, 1, ()), (0, 0, ())]
  """
  legs: list[Leg] = []
  pending: list[int] = []
  origin: tuple[int, int] | None = None

  def reverse(first: int, last: int, slot: int) -> None:
    """Steps `first <= k < last`, where `slot` holds the state before step `first`."""
    nonlocal origin
    while first < last:
      free = snapshots - 1 - slot
      origin = origin or (slot, first)
      if not free or last - first == 1:
        legs.append(Leg(*origin, tuple(pending)))
        pending.clear()
        origin, last = None, last - 1
      else:
        middle = first + _split(last - first, free)
        pending.append(middle)
        reverse(middle, last, slot + 1)
        last = middle

  reverse(0, num_steps, 0)
  return legs


def _split(length: int, free: int) -> int:
  """How far the next snapshot is from this one."""
  reach = lambda free, again: math.comb(free + 1 + again, free + 1) if free >= 0 and again >= 0 else 0
  again = next(count for count in range(length) if reach(free, count) >= length)
  return max(1, min(reach(free, again - 1), length - reach(free - 1, again - 1)))


def treeverse(body: Body, carry: PyTree, xs: PyTree, snapshots: int) -> PyTree:
  """`jax.lax.scan` of a body that stacks nothing, whose backward sweep keeps `snapshots` states.

  Args:
    body: `(carry, x) -> carry`; it may close over traced values.
    carry: The first state.
    xs: Inputs of the steps, leaves `[num_steps, ...]`.
    snapshots: States kept at once.

  Returns:
    The last state. Its derivative exists in reverse mode, once.
  """
  first = jax.tree.map(lambda leaf: leaf[0], xs)
  carry = jax.tree.map(lambda leaf, made: jnp.asarray(leaf, made.dtype), carry, jax.eval_shape(body, carry, first))
  step, smooth, rest = lifted(body, carry, first)
  legs = schedule(jax.tree.leaves(xs)[0].shape[0], snapshots)

  def run(smooth: PyTree, rest: PyTree, carry: PyTree, xs: PyTree) -> PyTree:
    return jax.lax.scan(lambda carry, x: (step(smooth, rest, carry, x), None), carry, xs)[0]

  def forward(*primals: Any) -> Any:
    # Only what is differentiated gets a cotangent: the examples of a task do not.
    active = [leaf.value if leaf is not None and leaf.perturbed else None for leaf in primals[0]]
    fixed = [None if leaf is None or leaf.perturbed else leaf.value for leaf in primals[0]]
    smooth, rest, carry, xs = jax.tree.map(lambda leaf: leaf.value, primals, is_leaf=is_primal)
    carry, kept = _sweep(lambda carry, x: step(smooth, rest, carry, x), carry, xs, legs[0].stores, snapshots)
    return carry, (active, fixed, rest, xs, kept)

  def backward(residuals: Any, cotangents: Any) -> Any:
    active, fixed, rest, xs, kept = residuals
    call = lambda active, carry, x: step(_merged(active, fixed), rest, carry, x)
    smooth_bar, carry_bar = _reversed_sweep(call, active, kept, xs, cotangents, legs)
    return smooth_bar, None, carry_bar, None

  differentiated = jax.custom_vjp(run)
  differentiated.defvjp(forward, backward, symbolic_zeros=True)
  return differentiated(smooth, rest, carry, xs)


def _sweep(step: Body, carry: PyTree, xs: PyTree, stores: tuple[int, ...], snapshots: int) -> tuple[PyTree, PyTree]:
  """All steps, and the buffer of snapshots `[snapshots + 1, ...]`, whose last entry is for what need not be kept."""
  count = jax.tree.leaves(xs)[0].shape[0]
  slots = np.full(count, snapshots, np.int32)
  slots[list(stores)] = 1 + np.arange(len(stores))
  slots[0] = 0

  def one(at: tuple[PyTree, PyTree], seen: tuple[jax.Array, PyTree]) -> tuple[tuple[PyTree, PyTree], None]:
    (carry, kept), (slot, x) = at, seen
    return (step(carry, x), _stored(kept, carry, slot)), None

  kept = jax.tree.map(lambda leaf: jnp.zeros((snapshots + 1, *leaf.shape), leaf.dtype), carry)
  return jax.lax.scan(one, (carry, kept), (jnp.asarray(slots), xs))[0]


def _reversed_sweep(
  step: Callable[[PyTree, PyTree, PyTree], PyTree],
  active: PyTree,
  kept: PyTree,
  xs: PyTree,
  cotangents: PyTree,
  legs: list[Leg],
) -> tuple[PyTree, PyTree]:
  """The cotangents of `active` and of the first state, from those of the last one."""
  snapshots = jax.tree.leaves(kept)[0].shape[0] - 1
  stored = legs[0].stores  # by the forward sweep
  legs = [Leg(len(stored), stored[-1] if stored else 0), *legs[1:]]
  stores = jnp.asarray([at for leg in legs for at in leg.stores] + [-1], jnp.int32)
  tables = [jnp.asarray([leg[i] for leg in legs], jnp.int32) for i in (0, 1)]

  def one(at: Any, leg: Any) -> tuple[Any, None]:
    (kept, next_store, total, bar), (slot, start, number) = at, leg

    def advance(at: Any) -> Any:
      carry, kept, place, next_store, slot = at
      carry, place = step(active, carry, _entry(xs, place)), place + 1
      found = (place == stores[next_store]).astype(jnp.int32)
      kept = _stored(kept, carry, jnp.where(found, slot + 1, snapshots))
      return carry, kept, place, next_store + found, slot + found

    begin = (_entry(kept, slot), kept, start, next_store, slot)
    carry, kept, _, next_store, _ = jax.lax.while_loop(lambda at: at[2] < number, advance, begin)
    smooth, others = _parted(carry)
    after = lambda active, smooth: _parted(step(active, _merged(smooth, others), _entry(xs, number)))[0]
    more, bar = jax.vjp(after, active, smooth)[1](bar)
    return (kept, next_store, jax.tree.map(jnp.add, total, more), bar), None

  bar = jax.tree.map(materialised, _parted(cotangents)[0])
  start = (kept, jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, active), bar)
  numbers = jnp.arange(len(legs), dtype=jnp.int32)[::-1]
  (_, _, total, bar), _ = jax.lax.scan(one, start, (*tables, numbers))
  return total, bar


def _parted(tree: PyTree) -> tuple[PyTree, PyTree]:
  """The leaves that have derivatives, and the others, with None in the places of the rest."""
  pick = lambda wanted: jax.tree.map(lambda leaf: leaf if is_inexact(leaf) == wanted else None, tree)
  return pick(True), pick(False)


def _merged(left: PyTree, right: PyTree) -> PyTree:
  return jax.tree.map(lambda a, b: b if a is None else a, left, right, is_leaf=lambda leaf: leaf is None)


def _entry(tree: PyTree, index: jax.Array) -> PyTree:
  return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree)


def _stored(kept: PyTree, carry: PyTree, slot: jax.Array) -> PyTree:
  return jax.tree.map(lambda all, one: jax.lax.dynamic_update_index_in_dim(all, one, slot, 0), kept, carry)
