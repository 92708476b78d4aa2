"""Functions for learned optimizers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax.tasks import few_shot, optimizees


def test_quadratics_are_gaussian_and_a_task_is_one_function():
  tasks = jax.jit(jax.vmap(optimizees.quadratics(4)))(jax.random.split(jax.random.key(0), 500))
  jax.tree.map(np.testing.assert_array_equal, tasks.support, tasks.query)
  function = tasks.support
  assert function.matrix.shape == (500, 4, 4) and function.start.shape == function.target.shape == (500, 4)
  for values, scale in ((function.matrix, 1.0), (function.target, 1.0), (function.start, 0.01)):
    assert abs(values.mean()) < 0.1 * scale and abs(values.std() / scale - 1) < 0.05
  assert abs(np.corrcoef(function.start.ravel(), function.target.ravel())[0, 1]) < 0.1


def test_the_loss_is_the_squared_residual_and_zero_at_the_solution():
  function = optimizees.quadratics(3)(jax.random.key(1)).support
  params = jnp.array([0.5, -1.0, 2.0])
  point = np.asarray(function.start + params)
  expected = sum((np.dot(row, point) - y) ** 2 for row, y in zip(*map(np.asarray, function[1:]), strict=True))
  np.testing.assert_allclose(optimizees.quadratic_loss(params, (), function)[0], expected, rtol=1e-5)
  solution = np.linalg.solve(function.matrix, function.target) - function.start
  np.testing.assert_allclose(optimizees.quadratic_loss(jnp.asarray(solution), (), function)[0], 0, atol=1e-8)


def test_bad_dim():
  with pytest.raises(ValueError, match="dim must be an integer of at least 1; got 0"):
    optimizees.quadratics(0)


def images(ways=3):
  drawn = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 4, 1), np.uint8)
  return few_shot.sampler(drawn, ways, shots=5, queries=1)


def test_a_training_has_its_own_start_and_its_own_images():
  tasks = jax.jit(jax.vmap(optimizees.trainings(images(), 3, hidden=4)))(jax.random.split(jax.random.key(0), 40))
  jax.tree.map(np.testing.assert_array_equal, tasks.support, tasks.query)
  start, x, y = tasks.support
  assert start.shape == (40, 17 * 4 + 5 * 3) and x.shape == (40, 15, 16) and y.shape == (40, 15)
  assert abs(start.std() / 0.01 - 1) < 0.05 and len(np.unique(start[:, 0])) == 40
  assert not np.array_equal(x[0], x[1])


def test_the_loss_of_a_training_is_that_of_the_network_written_out():
  task = toy.jit(optimizees.trainings(images(), 3, hidden=4))(jax.random.key(1)).support
  params = jax.random.normal(jax.random.key(2), task.start.shape)
  loss, aux = toy.jit(optimizees.training_loss(3, hidden=4))(params, (), task)
  w = np.asarray(task.start + params, np.float64)
  w1, b1, w2, b2 = w[:64].reshape(16, 4), w[64:68], w[68:80].reshape(4, 3), w[80:]
  logits = (1 / (1 + np.exp(-(np.asarray(task.x) @ w1 + b1)))) @ w2 + b2
  chosen = logits[np.arange(15), task.y] - np.log(np.exp(logits).sum(1))
  np.testing.assert_allclose(loss, -chosen.mean(), rtol=1e-5)
  assert aux["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == task.y))


def test_batches_of_a_training_keep_its_start():
  task = optimizees.trainings(images(), 3, hidden=4)(jax.random.key(1)).support
  draw = optimizees.training_batches(6)
  first, second = (draw(jax.random.key(3), task, jax.numpy.asarray(step), None, ()) for step in (0, 1))
  assert first.x.shape == (6, 16) and not np.array_equal(first.x, second.x)
  np.testing.assert_array_equal(first.start, task.start)


@pytest.mark.parametrize("bad", [{"ways": 0}, {"ways": 3, "hidden": 0}])
def test_bad_sizes_of_a_network(bad):
  with pytest.raises(ValueError, match="must be an integer of at least 1; got 0"):
    optimizees.trainings(images(), **bad)
