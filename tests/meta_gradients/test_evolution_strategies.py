"""Evolution strategies: exact for quadratic meta-losses, persistent over windows, restarted after a lifetime."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import CarriedMetaGrad, evolution_strategies, unrolled
from warpjax.meta_gradients.directions import directions
from warpjax.meta_gradients.evolution_strategies import _STREAM
from warpjax.problem import Problem
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

STD, PAIRS, WINDOW, PROX = 0.5, 3, 2, 0.4


def quadratic_loss(params, shared, batch):
  """Quadratic in (params, shared) together, so that gradient descent keeps the meta-loss quadratic."""
  target, offset = batch
  error = params - target + 0.5 * jnp.flip(shared) - offset
  return 0.5 * jnp.sum(jnp.array([1.0, 0.3, 0.6]) * error**2), {}


# NumPy's, as JAX would make them single precision before a fixture says otherwise.
META_PARAMS = MetaParams(np.array([0.3, -0.2, 0.5]), np.array([0.1, 0.4, -0.3]))


def linear_loop(prox=0.0, num_steps=4):
  return wj.InnerLoop(quadratic_loss, rules.sgd(0.4), num_steps, prox=prox)


def stream(key, steps_done=0):
  """The key of the noise of a window."""
  return jax.random.fold_in(jax.random.fold_in(key, _STREAM), steps_done)


def quadratic_task(seed=0):
  a, b, c, d = toy.draw(seed, 4, 3)
  return Task((a, b), (c, d))


def test_all_orthogonal_pairs_make_the_gradient_of_a_quadratic_meta_loss():
  estimate = evolution_strategies(linear_loop(), STD, 6, distribution="orthogonal")
  grads = toy.run(estimate, META_PARAMS, quadratic_task())[1]
  toy.assert_close(grads, toy.run(unrolled(linear_loop()), META_PARAMS, quadratic_task())[1], rtol=1e-8, atol=1e-10)


def window_slopes(inner, task):
  """The gradient of the last window's loss in the meta-parameters of each window, by reverse mode."""

  def loss(points):
    state = Problem(inner, points[0], task, toy.key()).start()
    for index in range(inner.num_steps):
      problem = Problem(inner, points[index // WINDOW], task, toy.key())
      state = problem.step(state, index).next
    return problem.query_loss(state.params, points[-1].shared, inner.num_steps)[0]

  return toy.jit(jax.grad(loss))([META_PARAMS] * (inner.num_steps // WINDOW))


@pytest.mark.parametrize("prox", [0.0, PROX])
def test_a_window_credits_the_noise_of_those_before(prox):
  """`E[xi (L+ - L-) / 2 std^2]`, written out for the noise drawn: sum over windows of (slope . noise)."""
  inner, task = linear_loop(prox), quadratic_task()
  estimate = evolution_strategies(inner, STD, PAIRS, window=WINDOW, task=task)
  assert isinstance(estimate, CarriedMetaGrad)
  carry, keys, step = estimate.init(META_PARAMS), jax.random.split(toy.key(), 2), toy.jit(estimate.grad)
  for key in keys:
    (_, grads), carry = step(META_PARAMS, task, key, carry)
  noises = [
    optax.tree.scale(STD, directions(stream(key, WINDOW * index), META_PARAMS, PAIRS, "normal"))
    for index, key in enumerate(keys)
  ]
  if not prox:
    noises[1] = noises[1]._replace(initial=jnp.zeros_like(noises[1].initial))
  slopes = window_slopes(inner, task)
  expected = optax.tree.zeros_like(META_PARAMS)
  for pair in range(PAIRS):
    mine = [jax.tree.map(lambda leaf, pair=pair: leaf[pair], noise) for noise in noises]
    difference = sum(2 * optax.tree.vdot(s, e) for s, e in zip(slopes, mine, strict=True))
    expected = optax.tree.add_scale(expected, difference / (2 * STD**2 * PAIRS), optax.tree.add(*mine))
  toy.assert_close(grads, expected, rtol=1e-8)


def test_windows_are_unbiased_for_the_whole_lifetime():
  inner, task = linear_loop(PROX), quadratic_task()
  estimate = evolution_strategies(inner, STD, 1, window=WINDOW, task=task)

  def lifetime(key):
    carry = estimate.init(META_PARAMS)
    for index in range(2):
      (_, grads), carry = estimate.grad(META_PARAMS, task, jax.random.fold_in(key, index), carry)
    return grads

  draws = toy.jit(jax.vmap(lifetime))(jax.random.split(toy.key(), 20_000))
  exact = toy.run(unrolled(inner), META_PARAMS, task)[1]
  last_window_alone = window_slopes(inner, task)[-1]

  def check(drawn, expected, truncated):
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - expected) < 5 * error)
    assert np.linalg.norm(truncated - expected) > 6 * np.linalg.norm(error)  # truncation would be seen

  jax.tree.map(check, draws[:2], exact[:2], last_window_alone[:2])


def test_windows_under_one_key_draw_their_own_noise():
  """As under `meta_steps.repeated`, where a task keeps its key over a lifetime."""
  inner, task = linear_loop(PROX), quadratic_task()
  estimate = evolution_strategies(inner, STD, PAIRS, window=WINDOW, task=task)
  step = toy.jit(estimate.grad)
  totals, carry = [], estimate.init(META_PARAMS)
  for _ in range(2):
    _, carry = step(META_PARAMS, task, toy.key(), carry)
    totals.append(carry.total.initial)
  assert not np.allclose(totals[1], 2 * totals[0])


@pytest.mark.parametrize("window", [None, WINDOW])
def test_keys_of_another_implementation_are_refused(window):
  task, key = quadratic_task(), jax.random.key(0, impl="rbg")
  estimator = evolution_strategies(linear_loop(), STD, PAIRS, window=window, task=None if window is None else task)
  run = estimator if window is None else lambda *args: estimator.grad(*args, estimator.init(META_PARAMS))
  with pytest.raises(ValueError, match="key must be a threefry key"):
    run(META_PARAMS, task, key)


def test_without_perturbation_to_speak_of_it_is_the_slope():
  """On a loss that is not quadratic the difference tends to the slope along the noise."""
  inner, meta_params, task = toy.loop(rules.adam(0.05)), toy.meta_params(), toy.task()
  grads = toy.run(evolution_strategies(inner, 1e-4, 1), meta_params, task)[1]
  noise = jax.tree.map(lambda v: v[0], directions(stream(toy.key()), meta_params, 1))
  slope = optax.tree.vdot(toy.run(unrolled(inner), meta_params, task)[1], noise)
  toy.assert_close(grads, optax.tree.scale(slope, noise), rtol=1e-4)  # off by the square of 1e-4 times a curvature


def test_a_lifetime_keeps_its_task_and_then_begins_anew():
  inner, first, second = linear_loop(), quadratic_task(0), quadratic_task(1)
  estimate = evolution_strategies(inner, STD, PAIRS, window=WINDOW, task=jax.eval_shape(lambda: first))
  step, keys = toy.jit(chex.assert_max_traces(lambda *args: estimate.grad(*args), n=1)), jax.random.split(toy.key(), 3)
  start = estimate.init(META_PARAMS)

  def run(*tasks):
    carry, results = start, []
    for key, task in zip(keys, tasks, strict=True):
      result, carry = step(META_PARAMS, task, key, carry)
      results.append(result)
    return results

  kept, switched = run(first, first, second), run(first, second, second)
  toy.assert_close(kept, switched)
  afresh = step(META_PARAMS, second, keys[2], start)[0]
  toy.assert_close(kept[2], afresh)


def test_bad_input():
  inner = linear_loop()
  for std in (0, -1.0, float("inf"), "small"):
    with pytest.raises(ValueError, match="std must be finite and above 0; got"):
      evolution_strategies(inner, std)
  with pytest.raises(ValueError, match="num_pairs must be an integer of at least 1; got 0"):
    evolution_strategies(inner, num_pairs=0)
  with pytest.raises(ValueError, match="window must divide InnerLoop.num_steps, 4; got 3"):
    evolution_strategies(inner, window=3, task=quadratic_task())
  with pytest.raises(ValueError, match="task must be an example of a task where there is a window"):
    evolution_strategies(inner, window=2)
