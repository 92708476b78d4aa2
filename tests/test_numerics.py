"""Sums over steps, points and directions in bfloat16, which by themselves would stand still."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import meta_gradients, numerics, rl, rules
from warpjax.training import replay
from warpjax.types import MetaParams, Task

STEPS = 1000  # a sum of ones in bfloat16 ends at 256
HERE = MetaParams(jnp.zeros(2, jnp.bfloat16), jnp.ones((), jnp.bfloat16))
TASK = Task(jnp.ones(1, jnp.bfloat16), jnp.ones(1, jnp.bfloat16))


def shared_loss(params, shared, batch):
  """Its derivative is 1 in `shared`, 0 in the parameters."""
  return shared * jnp.sum(batch) + 0 * jnp.sum(params), {}


def slope(params, shared, batch):
  """Its derivative is 1 / 256 in each parameter, so that every step is the same and exact."""
  return jnp.sum(params) / 256 + 0 * shared * jnp.sum(batch), {}


def gradient(estimate):
  return toy.jit(lambda: estimate(HERE, TASK, toy.key())[1])()


def test_warp_over_many_points():
  inner = wj.InnerLoop(shared_loss, rules.sgd(0.1), STEPS)
  for reduction, expected in (("mean", 1), ("sum", STEPS)):
    contribution = meta_gradients.warp("first_order", reduction=reduction)
    found = gradient(meta_gradients.along_trajectory(inner, contribution)).shared
    assert found.dtype == jnp.bfloat16 and float(found) == expected


def test_warp_over_a_replay():
  inner = wj.InnerLoop(shared_loss, rules.sgd(0.1), STEPS)
  tasks, keys = jax.tree.map(lambda leaf: leaf[None], TASK), jax.random.split(toy.key(), 1)

  def mean():
    collected, _ = replay.collect(inner, HERE, tasks, keys)
    return replay.warp_gradient(inner, HERE, collected, jnp.arange(STEPS), chunk=1).shared

  assert float(toy.jit(mean)()) == 1


def test_reptile_with_weights():
  """A first step that weighs 2, and 199 more of 1/256 each, which would be lost beside it."""
  inner = wj.InnerLoop(slope, rules.sgd(1.0), 200)
  contribution = meta_gradients.reptile([512.0, *(199 * [1.0])])
  found = gradient(meta_gradients.along_trajectory(inner, contribution)).initial
  np.testing.assert_array_equal(found, np.full(2, 2 + 199 / 256, np.float32).astype(jnp.bfloat16))


def test_leap_over_many_segments():
  inner = wj.InnerLoop(slope, rules.sgd(1 / 16), 1000)  # of unit length once the path is without its loss
  point = MetaParams(jnp.full(2, 1 / 64, jnp.bfloat16), HERE.shared)
  estimate = meta_gradients.along_trajectory(inner, meta_gradients.leap(loss=False))
  found = toy.jit(lambda: estimate(point, TASK, toy.key())[1].initial)()
  moving = np.sum(np.diff(_path(1000)) != 0)
  np.testing.assert_allclose(np.asarray(found, np.float32), moving / np.sqrt(2), rtol=0.01)


def _path(num_steps):
  """The same path by hand, each coordinate in bfloat16."""
  step = lambda w, _: (w - jnp.bfloat16(1 / 16) * jnp.bfloat16(1 / 256), w)
  return np.asarray(jax.lax.scan(step, jnp.bfloat16(1 / 64), None, length=num_steps)[1], np.float32)


def test_forward_gradients_over_many_directions():
  inner = wj.InnerLoop(shared_loss, rules.sgd(0.1), 1)
  estimate = meta_gradients.forward_gradient(inner, STEPS, distribution="rademacher")
  np.testing.assert_allclose(float(gradient(estimate).shared), 1, rtol=0.02)  # each direction gives a thousandth


def test_a_life_of_many_steps():
  life = rl.online(wj.InnerLoop(shared_loss, rules.sgd(0.1), STEPS))
  (_, grads), _ = toy.jit(lambda: life.grad(HERE, TASK, toy.key(), life.init(HERE)))()
  assert float(grads.shared) == STEPS and grads.shared.dtype == jnp.bfloat16


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_what_is_not_finite_is_seen_beside_integers_and_keys(value):
  tree = {"count": jnp.arange(3), "key": toy.key(), "number": jnp.ones(2)}
  assert numerics.is_finite(tree) and numerics.is_finite({"count": jnp.arange(3)})
  assert not numerics.is_finite(tree | {"more": jnp.array([0.0, value])})
