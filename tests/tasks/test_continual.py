"""The continual sequence: what each step sees, what each point is judged on, without a special case in the core."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from warpjax import losses, meta_gradients, rules
from warpjax.meta_gradients.warp import point_gradient
from warpjax.problem import Problem
from warpjax.tasks import continual

EACH, NUM = 3, 4


def apply(params, shared, x):
  return jnp.tanh(x @ params["w1"] + params["b1"]) @ shared["warp"] @ params["w2"]


def setting():
  keys = jax.random.split(jax.random.key(0), 4)
  draw = lambda i, *shape: jax.random.normal(keys[i], shape, float)
  params = {"w1": draw(0, 1, 5), "b1": draw(1, 5), "w2": draw(2, 5, 1)}
  task = continual.sampler(NUM, points=6)(jax.random.key(1))
  return wj.MetaParams(params, {"warp": draw(3, 5, 5)}), task, jax.random.key(2)


def loop(num_steps=EACH * NUM):
  return wj.InnerLoop(
    losses.regression(apply),
    rules.sgd(0.01),
    num_steps,
    batch_fn=continual.in_sequence(EACH),
    query_batch_fn=continual.all_subtasks,
    query_loss_fn=continual.weighted_loss(apply),
  )


def test_the_ranges_cover_the_domain_and_do_not_overlap():
  x = np.asarray(continual.sampler(5, points=200)(jax.random.key(3)).support[0])[..., 0]
  order = np.argsort(x.min(axis=1))
  low, high = x.min(axis=1)[order], x.max(axis=1)[order]
  assert np.all(high[:-1] <= low[1:])
  np.testing.assert_allclose(low, np.arange(-5, 5, 2), atol=0.1)
  np.testing.assert_allclose(high, np.arange(-3, 6, 2), atol=0.1)


def test_support_and_query_are_of_the_same_wave_at_other_points():
  task = continual.sampler(2, points=300)(jax.random.key(0))
  assert not np.any(np.isin(task.support[0], task.query[0]))
  for i in range(2):
    basis = lambda x: np.stack([np.sin(x[:, 0]), np.cos(x[:, 0])], 1)
    fit = np.linalg.lstsq(basis(np.asarray(task.support[0][i])), np.asarray(task.support[1][i]), rcond=None)[0]
    np.testing.assert_allclose(basis(np.asarray(task.query[0][i])) @ fit, task.query[1][i], atol=1e-3)


def test_a_step_sees_its_sub_task():
  batch_fn = continual.in_sequence(EACH)
  support = (jnp.arange(NUM), 10 * jnp.arange(NUM))
  seen = [int(batch_fn(jax.random.key(0), support, k, None, None)[0]) for k in range(EACH * NUM + 2)]
  assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]


def test_the_query_is_all_seen_so_far():
  _, task, key = setting()
  query = continual.seen_so_far(EACH)
  for k, expected in [(0, [1, 0, 0, 0]), (3, [0.5, 0.5, 0, 0]), (8, [1 / 3] * 3 + [0]), (11, [0.25] * 4)]:
    np.testing.assert_allclose(query(key, task, k, None, None).weights, expected, rtol=1e-6)
  np.testing.assert_allclose(continual.all_subtasks(key, task, None, None).weights, [0.25] * 4)


def test_weighted_loss_is_the_mean_over_the_seen_sub_tasks():
  meta_params, task, key = setting()
  batch = continual.seen_so_far(EACH)(key, task, 4, None, None)
  loss, aux = continual.weighted_loss(apply)(meta_params.initial, meta_params.shared, batch)
  one = [losses.regression(apply)(meta_params.initial, meta_params.shared, (batch.x[i], batch.y[i]))[0] for i in (0, 1)]
  np.testing.assert_allclose(loss, np.mean(one), rtol=1e-5)
  np.testing.assert_allclose(aux["mse_1"], one[1], rtol=1e-5)


def test_query_at_step_is_the_sum_over_points_written_out():
  with jax.enable_x64(True):
    meta_params, task, key = setting()
    inner = loop()
    contribution = continual.query_at_step(meta_gradients.warp(), continual.seen_so_far(EACH))
    _, grads = jax.jit(meta_gradients.along_trajectory(inner, contribution))(meta_params, task, key)
    steps = jax.jit(lambda task: wj.adapt(inner, meta_params, task, key, record=True).steps)(task)

    def point(state, k):
      seen = lambda key, task, params, shared: continual.seen_so_far(EACH)(key, task, k, params, shared)
      return point_gradient(Problem(inner._replace(query_batch_fn=seen), meta_params, task, key), state, k, "full")[0]

    expected = jax.tree.map(lambda leaf: leaf.mean(0), jax.jit(jax.vmap(point))(steps.state, steps.number))
    np.testing.assert_allclose(grads.shared["warp"], expected["warp"], rtol=1e-10)
    _, all_of_them = jax.jit(meta_gradients.along_trajectory(inner, meta_gradients.warp()))(meta_params, task, key)
    assert not np.allclose(grads.shared["warp"], all_of_them.shared["warp"])


@pytest.mark.parametrize("make", [continual.in_sequence, continual.seen_so_far])
def test_steps_each_is_checked(make):
  with pytest.raises(ValueError, match="steps_each"):
    make(0)


def test_counts_are_checked():
  with pytest.raises(ValueError, match="points"):
    continual.sampler(points=0)
