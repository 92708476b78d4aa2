"""Zero times infinity is NaN: a part whose weight is zero is left out, whatever its value is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, meta_gradients, rl, rules, training
from warpjax.diagnostics import geometry
from warpjax.meta_gradients import along_trajectory, leap
from warpjax.rl import advantages, rollouts
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")


def scalar_leap(start=0.0, learning_rate=0.5, **settings):
  """Leap's gradient of two steps of descent on 0.5 (w - 4)^2."""
  loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
  inner = wj.InnerLoop(loss, rules.sgd(learning_rate), 2)
  call = along_trajectory(inner, leap(**settings))
  return float(jax.jit(call)(MetaParams(jnp.array(start)), Task(4.0, 4.0), toy.key())[1].initial)


@pytest.mark.parametrize("eps", [0.0, 1e-12])
def test_leap_without_the_loss(eps):
  """Two segments, each pulls by its unit vector; before step 0 there is a segment of length zero."""
  np.testing.assert_allclose(scalar_leap(loss=False, eps=eps), -2.0, rtol=1e-10)


def test_leap_with_the_loss():
  np.testing.assert_allclose(scalar_leap(eps=0.0), -6.329761743, rtol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"loss": False}, {"norm": False}, {"stabilizer": False}])
def test_leap_at_the_end_of_its_path(settings):
  """A task that starts solved does not move: both its value and every segment are zero."""
  assert scalar_leap(4.0, eps=0.0, **settings) == 0.0


@pytest.mark.parametrize("solve", [linear_solve.cg(3), linear_solve.neumann(3), linear_solve.nystrom(2)])
def test_solves_of_zero(solve):
  x, info = solve(lambda v: 2.0 * v, jnp.zeros(3))
  np.testing.assert_array_equal(x, jnp.zeros(3))
  assert float(info["residual"]) == 0.0


def test_implicit_where_everything_is_solved():
  loss = lambda w, shared, batch: (0.5 * jnp.sum((w - batch) ** 2), {})
  inner = wj.InnerLoop(loss, rules.sgd(0.5), 2, prox=1.0)
  call = along_trajectory(inner, meta_gradients.implicit(linear_solve.cg(3)))
  (_, aux), grads = jax.jit(call)(MetaParams(jnp.ones(2)), Task(jnp.ones(2), jnp.ones(2)), toy.key())
  toy.assert_zero(grads.initial)
  assert all(bool(jnp.isfinite(value)) for value in aux.values())


def episodes(dead):
  """Two episodes of three steps, of which the second ended after one; `dead` is what comes after."""
  mask = jnp.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
  fill = lambda values: jnp.where(mask[..., None] > 0, values, dead)
  shape = (3, 2, 2)
  return rl.Episodes(
    fill(toy.draw(0, *shape)), fill(toy.draw(1, *shape)), jnp.where(mask > 0, toy.draw(2, 3, 2), 0.0), mask
  )


def test_means_over_a_mask():
  values, mask = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0])
  assert float(rollouts.masked_mean(values, mask)) == 2.0
  assert float(rollouts.masked_mean(values, 0 * mask)) == 0.0
  toy.assert_close(advantages.standardized(values, mask), jnp.array([-1.0, 1.0, 0.0]), rtol=1e-7)
  toy.assert_zero(advantages.standardized(values, 0 * mask))
  toy.assert_zero(advantages.standardized(jnp.ones(3), jnp.ones(3)))  # no deviation at all


@pytest.mark.parametrize("estimator", ["score", "ratio", "dice"])
def test_a_policy_gradient_of_steps_after_the_end(estimator):
  """An action that the policy rules out has the log-probability -inf, and a mask of zero makes NaN of that."""
  policy = rl.memoryless(lambda params, shared, seen: (seen @ params, jnp.zeros_like(seen)), rl.gaussian())
  loss = rl.policy_gradient(policy, estimator)
  results = []
  for dead in (0.0, 1e200):
    batch = rollouts.Batch(episodes(dead)._replace(observations=episodes(0.0).observations), toy.draw(3, 3, 2))
    results.append(toy.jit(jax.value_and_grad(lambda w, batch=batch: loss(w, (), batch)[0]))(jnp.eye(2)))
  toy.assert_close(results[0], results[1])


def test_rollouts_forget_what_an_environment_says_after_the_end():
  class Ends:
    def reset_env(self, key, params):
      return jnp.ones(2), jnp.zeros((), jnp.int32)

    def step_env(self, key, state, action, params):
      after = jnp.where(state < 1, jnp.ones(2), jnp.nan)
      return after, state + 1, jnp.where(state < 1, 1.0, jnp.nan), state >= 0, {}

  policy = rl.memoryless(lambda params, shared, seen: (seen @ params, jnp.zeros_like(seen)), rl.gaussian())
  rollout = lambda key: rl.rollout(Ends(), policy, jnp.eye(2), (), (), key, num_steps=4, num_episodes=2)
  seen = toy.jit(rollout)(toy.key())
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(seen))
  np.testing.assert_array_equal(seen.mask, [[1, 1], [0, 0], [0, 0], [0, 0]])
  assert float(seen.mean_return()) == 1.0

  def loss(w):
    return rl.policy_gradient(policy)(w, (), rollouts.Batch(seen, rl.reinforce()(seen)))[0]

  value, slope = toy.jit(jax.value_and_grad(loss))(jnp.eye(2))
  assert bool(jnp.isfinite(value)) and bool(jnp.isfinite(slope).all())


def test_the_divergence_of_policies_that_rule_an_action_out():
  p, q = jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([1.0, 0.0, -jnp.inf])
  kl = rl.categorical().kl
  np.testing.assert_allclose(kl(p, q), kl(p[:2], q[:2]), rtol=1e-12)
  slope = jax.grad(lambda free: kl(p, jnp.append(free, -jnp.inf)))(q[:2])
  np.testing.assert_allclose(slope, jax.grad(lambda free: kl(p[:2], free))(q[:2]), rtol=1e-12)


def test_a_warp_that_loses_a_direction():
  for matrix in (jnp.diag(jnp.array([1.0, 0.0])), jnp.zeros((2, 2))):
    assert float(geometry.spread(lambda theta, m=matrix: m @ theta, jnp.ones(2))["condition"]) == np.inf


def test_no_tasks_have_no_mean():
  optimizer = wj.optimizers.per_block(wj.rules.sgd(1.0).transform(()))
  state = training.init(toy.key(), rules.sgd(0.1), toy.initial(), toy.shared(), optimizer)
  step = training.meta_step(meta_gradients.unrolled(toy.loop()), optimizer)
  with pytest.raises(ValueError, match="tasks must hold one task or more"):
    step(state, jax.tree.map(lambda leaf: leaf[:0], toy.tasks(2)))
