"""DiCE gives the exact meta-gradient where all episodes can be listed; other surrogates give another."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from tests.rl import tabular
from warpjax import meta_gradients, rl
from warpjax.rl import advantages, objectives

PARAMS = np.array([[0.3, -0.2], [-0.5, 0.4]])
TASK = wj.Task(1.5, 1.5)


def meta_gradient(inner, derivative="mixed"):
  return toy.jit(meta_gradients.unrolled(inner, derivative))(wj.MetaParams(jnp.asarray(PARAMS)), TASK, toy.key())


def test_the_exact_one_is_the_slope_of_the_return_after_adaptation(x64):
  inner = tabular.exact_loop()
  after = toy.jit(
    lambda params: inner.loss_fn(wj.adapt(inner, wj.MetaParams(params), TASK, toy.key()).final.params, (), 1.5)[0]
  )
  toy.assert_slopes(after, jnp.asarray(PARAMS), meta_gradient(inner)[1].initial)


@pytest.mark.parametrize("derivative", ["mixed", pytest.param("reverse", marks=pytest.mark.slow)])
def test_dice_is_exact(x64, derivative):
  expected = meta_gradient(tabular.exact_loop())[1].initial
  found = meta_gradient(tabular.listed_loop("dice"), derivative)[1].initial
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("estimator", "off"), [("score", 0.74), ("ratio", 0.18)])
def test_the_other_surrogates_are_not(x64, estimator, off):
  expected, found = (
    np.asarray(meta_gradient(loop)[1].initial) for loop in (tabular.exact_loop(), tabular.listed_loop(estimator))
  )
  assert np.linalg.norm(found - expected) / np.linalg.norm(expected) == pytest.approx(off, abs=0.005)


def test_every_surrogate_has_the_exact_first_derivative(x64):
  def slopes(params):
    losses = [rl.policy_gradient(tabular.policy(), name) for name in ("score", "ratio", "dice")]
    batch = tabular.listed(params, 1.5)
    exact = jax.grad(lambda p: tabular.expected_loss(p, (), (), 1.5)[0])(params)
    return exact, [jax.grad(lambda p, loss=loss: loss(p, (), batch)[0])(params) for loss in losses]

  expected, found = toy.jit(slopes)(PARAMS)
  for gradient in found:
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


def test_the_hessian_of_dice_is_exact(x64):
  def both(params):
    loss, batch = rl.policy_gradient(tabular.policy(), "dice"), tabular.listed(params)
    exact = jax.hessian(lambda p: tabular.expected_loss(p, (), ())[0])(params)
    return exact, jax.hessian(lambda p: loss(p, (), batch)[0])(params)

  expected, found = toy.jit(both)(PARAMS)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_an_unknown_estimator_is_refused():
  with pytest.raises(ValueError, match="estimator must be one of 'score', 'ratio', 'dice'"):
    rl.policy_gradient(tabular.policy(), "reinforce")


def test_masked_steps_have_no_say():
  rng = np.random.default_rng(0)
  log_probs, mask = jnp.asarray(rng.normal(size=(4, 2))), jnp.array([[1, 1], [1, 1], [1, 0], [1, 0]])
  total = lambda l: jnp.sum(objectives.dice_weights(l, mask) * mask)
  assert not np.any(np.asarray(toy.jit(jax.grad(total))(log_probs))[2:, 1])


def test_advantages_by_their_definition():
  rng = np.random.default_rng(1)
  rewards, values = rng.normal(size=(2, 5)).astype(np.float32)
  found = toy.jit(lambda *args: advantages.gae(*args, 0.9, 0.7, last=jnp.array(0.4)))(rewards, values)
  following = [*values[1:], 0.4]
  errors = [r + 0.9 * after - v for r, v, after in zip(rewards, values, following, strict=True)]
  expected = [sum((0.9 * 0.7) ** k * errors[t + k] for k in range(5 - t)) for t in range(5)]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  whole = toy.jit(lambda rewards, values: advantages.gae(rewards, values, 0.9, 1.0))(rewards, values)
  discounted = toy.jit(lambda rewards: advantages.discounted(rewards, 0.9))(rewards)
  np.testing.assert_allclose(whole, discounted - values, rtol=1e-4, atol=1e-6)


def test_the_baseline_fits_what_is_linear_in_its_features(x64):
  rng = np.random.default_rng(2)
  observations, time = rng.normal(size=(6, 3, 2)), np.arange(6)[:, None] / 100
  returns = 2 + observations[..., 0] - 3 * observations[..., 1] ** 2 + 40 * time
  mask = np.ones((6, 3))
  mask[4:, 1] = 0
  spoilt = np.where(mask > 0, returns, 1e3)  # steps after the end are not fitted
  fit = toy.jit(
    lambda observations, mask, returns: advantages.linear_baseline(rl.Episodes(observations, None, None, mask), returns)
  )(observations, mask, spoilt)
  np.testing.assert_allclose(np.asarray(fit)[mask > 0], returns[mask > 0], atol=1e-2)


def test_the_baseline_is_finite_where_its_features_are_collinear():
  """One-hot observations are their own squares and add up to the constant."""
  rng = np.random.default_rng(4)
  observations = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (20, 100))]
  returns = (observations @ np.arange(5.0)).astype(np.float32)
  mask = np.ones((20, 100), np.float32)
  fit = toy.jit(lambda returns: advantages.linear_baseline(rl.Episodes(observations, None, None, mask), returns))
  np.testing.assert_allclose(fit(returns), returns, atol=0.05)


def test_an_episode_that_has_ended_is_worth_nothing_more():
  """A_0 of an episode over after its first action is `r_0 - v_0`, whatever the critic says of what follows."""
  values = jnp.array([[0.5], [3.0], [3.0]])
  logits = jnp.tile(jnp.array([0.3, -0.2]), (3, 1, 1))
  apply = lambda params, shared, inputs: (jnp.zeros((1, 1)), params["logits"][inputs[1]], params["values"][inputs[1]])
  policy = rl.recurrent(apply, rl.categorical())
  loss = rl.a2c(policy, 0.9, trace=0.5, value_cost=0.0, concentration_cost=0.0)
  ended = rl.Episodes(
    jnp.arange(3)[:, None], jnp.zeros((3, 1), jnp.int32), jnp.array([[1.0], [0.0], [0.0]]), jnp.array([[1.0], [0], [0]])
  )
  found = toy.jit(loss)({"logits": logits[:, 0], "values": values[:, 0]}, (), ended)[0]
  expected = -jax.nn.log_softmax(logits[0, 0])[0] * (1.0 - 0.5)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a2c_has_the_policy_gradient_and_the_critics_error(x64):
  rng = np.random.default_rng(3)
  observations, actions, rewards = rng.normal(size=(4, 2, 3)), rng.integers(0, 2, (4, 2)), rng.normal(size=(4, 2))
  apply = lambda params, shared, inputs: (jnp.zeros((2, 1)), inputs[1] @ params["w"], inputs[1] @ params["v"])
  params = {"w": rng.normal(size=(3, 2)), "v": rng.normal(size=3)}
  loss = rl.a2c(rl.recurrent(apply, rl.categorical()), 0.9, concentration_cost=0.0)
  episodes = rl.Episodes(observations, actions, rewards, np.ones((4, 2)))
  found = toy.jit(jax.grad(lambda p, seen: loss(p, (), seen)[0]))(params, episodes)
  returns = [sum(0.9**k * rewards[t + k] for k in range(4 - t)) for t in range(4)]
  error = np.array(returns) - observations @ params["v"]
  np.testing.assert_allclose(found["v"], -0.2 * np.einsum("te,tei->i", error, observations) / 8, rtol=1e-9)
  odds = np.exp(observations @ params["w"])
  chosen = np.eye(2)[actions] - odds / odds.sum(-1, keepdims=True)
  np.testing.assert_allclose(found["w"], -np.einsum("te,tei,tea->ia", error, observations, chosen) / 8, rtol=1e-9)


def test_a_recurrent_policy_keeps_its_memories_alone_for_the_derivative():
  """And not what a step leaves on the way, here ten times as wide."""

  def apply(params, shared, inputs):
    memory, x = inputs
    before = jnp.zeros((2, 3)) if memory is None else memory
    wide = jnp.tanh(jnp.concatenate([before, x], axis=-1) @ params)
    memory = jnp.mean(wide.reshape(2, 3, 10), axis=-1)
    return memory, memory, memory[:, 0]

  policy = rl.recurrent(apply, rl.categorical())
  value = lambda params, seen: jnp.sum(policy.sequence(params, (), seen).value)
  seen, params = jnp.ones((7, 2, 4)), jnp.ones((7, 30))
  program = str(jax.make_jaxpr(jax.grad(value))(params, seen))
  assert "f32[7,2,3]" in program and "f32[7,2,30]" not in program
