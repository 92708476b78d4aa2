"""Functions for learned optimizers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax.tasks import optimizees


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
  with pytest.raises(ValueError, match="dim must be at least 1; got 0"):
    optimizees.quadratics(0)
