"""A trust region, learning along a life, the policies' distributions, and policies of every kind in one rollout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import networks, rl, rules, training
from warpjax.rl import navigation, trpo
from warpjax.training import optimizers


def test_a_trust_region_step_on_a_quadratic_is_the_closed_form(x64):
  a = np.array([[3.0, 0.5], [0.5, 1.0]])
  gradient, settings = np.array([0.4, -0.3]), trpo.Settings(max_kl=0.02, damping=0.0)
  judge = lambda x: (jnp.dot(gradient, x), {"kl": 0.5 * jnp.dot(x, a @ x)})
  step = toy.jit(lambda x: trpo.trust_region(settings, x, jnp.asarray(gradient), lambda v: a @ v, judge))
  moved, metrics = step(jnp.zeros(2))
  newton = np.linalg.solve(a, gradient)
  expected = -np.sqrt(2 * 0.02 / (gradient @ newton)) * newton
  # At full length the divergence is the bound itself, which rounding may put on either side.
  np.testing.assert_allclose(moved, metrics["step_scale"] * expected, rtol=1e-8)
  assert metrics["step_scale"] in (1.0, 0.8) and metrics["kl"] <= 0.02


def test_a_step_that_would_gain_nothing_is_not_taken(x64):
  worse = lambda x: (jnp.sum(jnp.abs(x)), {"kl": jnp.zeros(())})
  run = toy.jit(lambda x: trpo.trust_region(trpo.DEFAULT, x, jnp.ones(2), lambda v: v, worse))
  moved, metrics = run(jnp.zeros(2))
  assert not np.any(moved) and metrics["step_scale"] == 0 and metrics["kl"] == 0


def life(num_steps, batch_fn):
  def loss(params, shared, batch):
    return 0.5 * jnp.sum((shared * params - batch) ** 2), {"return": jnp.sum(params)}

  return wj.InnerLoop(loss, rules.adam(0.1), num_steps=num_steps, batch_fn=batch_fn)


def test_a_life_goes_on_over_meta_steps(x64):
  batches = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
  inner = life(2, lambda key, support, step, params, shared: support[step])
  optimizer = optimizers.per_block(initial=optax.sgd(1.0), shared=optax.sgd(0.05))
  meta_grad = rl.online(inner)
  state = training.init(
    toy.key(), inner.rule, np.ones(3), np.full(3, 0.5), optimizer, meta_grad=meta_grad, tasks_per_step=1
  )
  step = toy.jit(training.meta_step(meta_grad, optimizer))
  for two in (batches[None, :2], batches[None, 2:]):
    state, metrics = step(state, wj.Task(two, ()))

  # By hand: Adam at every step without a restart, the shared factors every second step by the sum of their gradients.
  adam = inner.rule.transform(())
  params, shared, total = jnp.ones(3), jnp.full(3, 0.5), jnp.zeros(3)
  opt_state = adam.init(params)
  for index, batch in enumerate(batches):
    error = shared * params - batch
    updates, opt_state = adam.update(error * shared, opt_state, params)
    params, total = params + updates, total + error * params
    if index % 2:
      shared, total = shared - 0.05 * total, jnp.zeros(3)
  np.testing.assert_allclose(state.meta_params.initial, params, rtol=1e-10)
  np.testing.assert_allclose(state.meta_params.shared, shared, rtol=1e-10)
  assert metrics["finite"]


def test_a_lifes_rule_is_given_what_adaptation_gives(x64):
  """Here one that moves by the loss, by the loss elsewhere and by what it draws."""

  def update(grads, state, params, *, value, grad, value_fn, key):
    return jnp.stack([value, value_fn(jnp.full(3, 2.0)), jax.random.uniform(key, dtype=float)]), state

  rule = rules.from_optax(optax.GradientTransformationExtraArgs(lambda params: (), update))
  inner = life(2, lambda key, support, step, params, shared: support)._replace(rule=rule)
  start, task = wj.MetaParams(jnp.ones(3), jnp.full(3, 0.5)), wj.Task(jnp.array([1.0, 2.0, 3.0]), ())

  @toy.jit
  def both(start, task, key):
    return rl.online(inner).grad(start, task, key, ())[0][1].initial, wj.adapt(inner, start, task, key).final.params

  moved, adapted = both(start, task, toy.key())
  np.testing.assert_allclose(start.initial - moved, adapted, rtol=1e-12)
  assert np.all(adapted != start.initial)


def test_a_life_has_no_prox_term():
  with pytest.raises(ValueError, match="prox"):
    rl.online(toy.loop(prox=1.0))


def test_the_gaussian_against_samples(x64):
  p, q = (np.array([0.3, -1.0]), np.array([0.2, -0.4])), (np.array([0.1, -0.7]), np.array([-0.1, 0.3]))
  distribution = rl.gaussian()

  @toy.jit
  def measure(key):
    actions = distribution.sample(p, distribution.noise(key, (200_000,), p))
    gap = distribution.log_prob(p, actions) - distribution.log_prob(q, actions)
    return actions.mean(0), actions.std(0), gap.mean(), distribution.kl(p, q), distribution.log_prob(p, p[0])

  mean, std, gap, kl, peak = measure(toy.key())
  np.testing.assert_allclose(mean, p[0], atol=0.02)
  np.testing.assert_allclose(std, np.exp(p[1]), rtol=0.02)
  np.testing.assert_allclose(gap, kl, atol=0.02)
  np.testing.assert_allclose(peak, -np.sum(p[1]) - np.log(2 * np.pi), rtol=1e-10)


def test_the_categorical_against_its_definition(x64):
  p, q = np.array([0.5, -1.0, 0.2]), np.array([0.0, 0.3, 0.1])
  distribution = rl.categorical()
  odds = [np.exp(logits) / np.exp(logits).sum() for logits in (p, q)]

  @toy.jit
  def measure(key):
    actions = distribution.sample(p, distribution.noise(key, (100_000,), p))
    return jnp.bincount(actions, length=3) / 100_000, distribution.kl(p, q), distribution.log_prob(p, jnp.array(2))

  counts, kl, log_prob = measure(toy.key())
  np.testing.assert_allclose(counts, odds[0], atol=0.01)
  np.testing.assert_allclose(kl, np.sum(odds[0] * np.log(odds[0] / odds[1])), rtol=1e-10)
  np.testing.assert_allclose(log_prob, np.log(odds[0][2]), rtol=1e-10)


@pytest.mark.parametrize(
  "module",
  [pytest.param(networks.RNN, marks=pytest.mark.slow), networks.WarpRNN, networks.HebbianRNN],
  ids=lambda m: m.__name__,
)
def test_a_sequence_is_its_steps_and_the_warp_is_shared(module):
  network = networks.from_linen(module(6, 3))
  policy = rl.recurrent(network.apply, rl.categorical())
  seen = toy.draw(1, 4, 2, 5, dtype=jnp.float32)
  params, shared = toy.init(network, (None, seen[0]))
  assert bool(jax.tree.leaves(shared)) == (module is networks.WarpRNN)
  if shared:
    assert set(shared) == {"warp_lstm", "warp_gains"} and shared["warp_gains"]["kernel"].shape == (6, 5 + 5 * 6)

  @toy.jit
  def both(params, shared, seen):
    memory, parts = policy.start(params, shared, seen[0]), []
    for observations in seen:
      memory, outputs = policy.step(params, shared, memory, observations)
      parts.append(outputs)
    return policy.sequence(params, shared, seen), jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

  whole, steps = both(params, shared, seen)
  toy.assert_close(whole, steps, rtol=1e-5, atol=1e-6)
  assert whole.action.shape == (4, 2, 3) and whole.value.shape == (4, 2)
  assert not np.allclose(whole.action[0], whole.action[-1])


def test_navigation_trains_by_the_librarys_own_steps():
  """Rollouts are batches like any other: `unrolled`, `training` and `evaluation` need nothing new."""
  network = networks.from_linen(networks.GaussianMLP((16,)))
  policy = rl.memoryless(network.apply, rl.gaussian())
  env, rate = rl.navigation.point_navigation(), rl.reinforce(0.99)
  batch_fn, query_batch_fn = rl.batches(env, policy, rate, num_steps=8, num_episodes=10)
  inner = wj.InnerLoop(
    rl.policy_gradient(policy, "ratio"), rules.sgd(0.3), 1, batch_fn=batch_fn, query_batch_fn=query_batch_fn
  )
  params, shared = toy.init(network, jnp.zeros(2))
  optimizer = optax.adam(1e-2)
  state = training.init(toy.key(), inner.rule, params, shared, optimizer)
  step = training.meta_step(wj.meta_gradients.unrolled(inner), optimizer, task_chunk=4)
  many = toy.jit(training.many_steps(step, navigation.sampler(), tasks_per_step=4, num_steps=3))
  state, metrics = many(state)
  assert metrics["finite"].all() and metrics["return"].shape == (3,) and (metrics["return"] < 0).all()
  assert (metrics["grad_norm/initial"] > 0).all()
