from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax.tasks import quadratic
from warpjax.types import Task


@pytest.fixture(autouse=True)
def _float64():
  with jax.enable_x64(True):
    yield


def _task(rows=6, dim=6):
  keys = jax.random.split(jax.random.key(0), 5)
  batch = lambda a, b: (jax.random.normal(a, (rows, dim)) / 2, jax.random.normal(b, (rows,)))
  return Task(batch(*keys[:2]), batch(*keys[2:4])), jax.random.normal(keys[4], (dim,))


def _loop(task, initial, learning_rate, num_steps, prox):
  """Gradient descent written out, as the closed forms must not be."""
  objective = lambda phi: quadratic.loss(phi, (), task.support)[0] + prox / 2 * jnp.sum((phi - initial) ** 2)
  return jax.lax.fori_loop(0, num_steps, lambda _, phi: phi - learning_rate * jax.grad(objective)(phi), initial)


@pytest.mark.parametrize("prox", [0.0, 0.7])
@pytest.mark.parametrize("rows", [3, 6], ids=["flat directions", "full rank"])
def test_descent_and_its_meta_gradient_equal_a_plain_loop(rows, prox):
  task, initial = _task(rows)
  settings = {"learning_rate": 0.05, "num_steps": 12, "prox": prox}
  np.testing.assert_allclose(
    quadratic.descent_point(task, initial, **settings), _loop(task, initial, *settings.values()), atol=1e-12
  )
  outer = lambda theta: quadratic.loss(_loop(task, theta, *settings.values()), (), task.query)[0]
  np.testing.assert_allclose(
    quadratic.unrolled_meta_gradient(task, initial, **settings), jax.jit(jax.grad(outer))(initial), atol=1e-12
  )


def test_the_prox_point_is_stationary():
  task, initial = _task()
  point = quadratic.prox_point(task, initial, prox=2.0)
  objective = lambda phi: quadratic.loss(phi, (), task.support)[0] + jnp.sum((phi - initial) ** 2)
  np.testing.assert_allclose(jax.grad(objective)(point), 0, atol=1e-12)


def test_the_implicit_meta_gradient_is_that_of_a_converged_loop():
  task, initial = _task()
  outer = lambda theta: quadratic.loss(_loop(task, theta, 0.15, 200, 2.0), (), task.query)[0]
  np.testing.assert_allclose(
    quadratic.implicit_meta_gradient(task, initial, prox=2.0), jax.jit(jax.grad(outer))(initial), atol=1e-11
  )


def test_many_steps_of_descent_reach_the_implicit_meta_gradient():
  task, initial = _task()
  unrolled = quadratic.unrolled_meta_gradient(task, initial, learning_rate=0.15, num_steps=10**6, prox=2.0)
  np.testing.assert_allclose(unrolled, quadratic.implicit_meta_gradient(task, initial, prox=2.0), atol=1e-12)


def test_the_loss_is_half_the_squared_residual():
  task, initial = _task()
  value, aux = quadratic.loss(initial, (), task.support)
  np.testing.assert_allclose(value, 0.5 * np.sum((np.asarray(task.support[0]) @ initial - task.support[1]) ** 2))
  assert aux == {}


def test_the_condition_number_is_as_asked():
  task = quadratic.sampler(8, condition_number=1000.0)(jax.random.key(1))
  for matrix, _ in task:
    values = np.linalg.eigvalsh(matrix.T @ matrix)
    np.testing.assert_allclose([values[-1], values[-1] / values[0]], [1, 1000], rtol=1e-9)
    np.testing.assert_allclose(np.diff(np.log(values)), np.log(1000) / 7, rtol=1e-6)


def test_without_noise_support_and_query_share_their_solution():
  (matrix, target), (other, judged) = quadratic.sampler(5, noise=0.0)(jax.random.key(2))
  np.testing.assert_allclose(other @ np.linalg.solve(matrix, target), judged, atol=1e-9)
  assert not np.allclose(matrix, other)


def test_tasks_differ_and_carry_noise():
  tasks = jax.jit(jax.vmap(quadratic.sampler(5, noise=0.5)))(jax.random.split(jax.random.key(3), 400))
  support, query = (np.linalg.solve(np.asarray(m), np.asarray(b)[..., None])[..., 0] for m, b in tasks)
  residual = np.einsum("tij,tj->ti", np.asarray(tasks.support[0]), query - support)
  assert 0.5 < residual.std() < 1.5
  np.testing.assert_allclose(support.mean(0), 0, atol=0.5)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"dim": 0}, "dim must be an integer of at least 1; got 0"),
    ({"condition_number": 0.5}, "condition_number must be at least 1; got 0.5"),
    ({"noise": -1.0}, "noise must not be negative; got -1.0"),
  ],
)
def test_bad_arguments(kwargs, message):
  with pytest.raises(ValueError, match=message):
    quadratic.sampler(**kwargs)
