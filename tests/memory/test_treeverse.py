"""Binomial checkpointing: the schedule against dynamic programming, derivatives against a plain scan."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest

from tests import toy
from warpjax.memory.treeverse import schedule, treeverse

pytestmark = pytest.mark.usefixtures("strict")


@functools.cache
def fewest(length, free):
  """Steps computed again at least to reverse `length` steps with `free` further snapshots."""
  if length == 1 or not free:
    return length * (length - 1) // 2
  return min(at + fewest(length - at, free - 1) + fewest(at, free) for at in range(1, length))


@pytest.mark.parametrize("snapshots", [1, 2, 3, 5, 40])
def test_the_schedule_is_followed_in_its_slots_and_is_the_cheapest(snapshots):
  for num_steps in (1, 2, 3, 7, 20, 33):
    slots, steps = {0: 0}, 0
    legs = schedule(num_steps, snapshots)
    for number, leg in zip(reversed(range(num_steps)), legs, strict=True):
      assert slots[leg.slot] == leg.start <= number  # what the slot holds is what the leg expects
      slots |= {leg.slot + 1 + i: at for i, at in enumerate(leg.stores)}
      assert all(leg.start < at <= number for at in leg.stores) and list(leg.stores) == sorted(leg.stores)
      assert max(slots) < snapshots
      steps += number - leg.start
    assert steps == fewest(num_steps, snapshots - 1)


def repetitions(num_steps, snapshots):
  """How often the step that runs most often runs again."""
  legs = list(zip(reversed(range(num_steps)), schedule(num_steps, snapshots), strict=True))
  return max(sum(leg.start <= at < number for number, leg in legs) for at in range(num_steps))


def test_binomial_numbers_of_steps():
  """With S snapshots and r repetitions, as many steps as the binomial of S + r over S."""
  assert (repetitions(35, 3), repetitions(36, 3)) == (4, 5)  # 35 is 7 over 3


def body(carry, x):
  """Leaves of every kind: real, complex, integer, and a key."""
  weight = jnp.sin(carry["w"]) * x + carry["z"].real
  key = jax.random.fold_in(carry["key"], carry["count"])
  moved = carry["w"] + 0.3 * weight + 0.1 * jax.random.uniform(key, carry["w"].shape)
  return {"w": moved, "z": carry["z"] * jnp.exp(0.1j * weight), "count": carry["count"] + 1, "key": key}


@pytest.mark.parametrize(("num_steps", "snapshots"), [(1, 1), (6, 1), (7, 2), (9, 3), (4, 9)])
def test_the_derivative_is_that_of_a_scan(num_steps, snapshots):
  xs = jnp.linspace(0.5, 1.5, num_steps)

  def loss(scan, start, scale, offset):
    closed = lambda carry, x: body(carry | {"w": carry["w"] * scale + offset}, x)  # closes over traced values
    end = scan(closed, {"w": start, "z": start + 1j, "count": jnp.int32(0), "key": toy.key()}, xs)
    return jnp.abs(end["z"]) ** 2 + end["w"] ** 3 + end["count"]

  plain = lambda body, carry, xs: jax.lax.scan(lambda carry, x: (body(carry, x), None), carry, xs)[0]
  mine = lambda body, carry, xs: treeverse(body, carry, xs, snapshots)
  of = lambda scan: toy.jit(jax.vmap(jax.value_and_grad(lambda *args: loss(scan, *args), (0, 1)), (0, 0, None)))
  arguments = jnp.array([0.2, -0.4]), jnp.array([0.9, 1.1]), 0.1
  toy.assert_close(of(mine)(*arguments), of(plain)(*arguments), rtol=1e-12)
