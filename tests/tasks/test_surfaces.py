"""The random surfaces: `peaks` by value, the draws, the identity warp, and a descent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.tasks import surfaces


def matlab_peaks(x, y):
  """The formula of MATLAB's `peaks`, as its documentation prints it."""
  return (
    3 * (1 - x) ** 2 * np.exp(-(x**2) - (y + 1) ** 2)
    - 10 * (x / 5 - x**3 - y**5) * np.exp(-(x**2) - y**2)
    - np.exp(-((x + 1) ** 2) - y**2) / 3
  )


def test_peaks_is_matlabs():
  x = np.random.default_rng(0).uniform(-3, 3, (50, 2))
  with jax.enable_x64(True):
    np.testing.assert_allclose(surfaces.height(surfaces.PEAKS, jnp.asarray(x)), matlab_peaks(*x.T), rtol=1e-12)


def test_the_literal_form_differs_in_its_last_term_alone():
  surface = surfaces.PEAKS._replace(b=np.array([3.0, 10.0, 0.0]))
  x = jnp.array([[0.5, -1.0], [1.5, 0.25]])
  np.testing.assert_array_equal(surfaces.height(surface, x), surfaces.height(surface, x, literal=True))
  difference = surfaces.height(surfaces.PEAKS, x, literal=True) - surfaces.height(surfaces.PEAKS, x)
  expected = np.exp(-((x[:, 0] + 1) ** 2)) * (np.exp(-(x[:, 1] ** 2)) - np.exp(-(x[:, 0] ** 2))) / 3
  np.testing.assert_allclose(difference, expected, rtol=1e-3, atol=1e-6)


def test_every_value_is_drawn_and_no_other():
  drawn = jax.vmap(surfaces.random_surface)(jax.random.split(jax.random.key(0), 500))
  assert set(np.unique(drawn.a)) == {-1, 0, 1}
  assert set(np.unique(drawn.b)) == set(range(-5, 6))
  assert set(np.unique(drawn.s)) == set(range(1, 11))


def test_starts_fill_the_square():
  task = surfaces.sampler(400)(jax.random.key(0))
  assert task.support.start.shape == (400, 2)
  assert -3 <= float(task.support.start.min()) < -2.9
  assert 2.9 < float(task.support.start.max()) <= 3


def test_the_warp_starts_as_the_identity_and_learns():
  warp, sample = surfaces.init_warp(jax.random.key(0)), toy.jit(surfaces.sampler(10))
  theta = sample(jax.random.key(0)).support.start
  np.testing.assert_array_equal(surfaces.residual_warp(warp, theta), theta)
  loss_fn = surfaces.loss(surfaces.residual_warp)
  task = sample(jax.random.key(1))
  grads = toy.jit(jax.grad(lambda shared: loss_fn(jnp.zeros((10, 2)), shared, task.support)[0]))(warp)
  assert np.any(grads["w3"])


def test_each_start_descends_by_itself():
  """The loss is a sum, so that ten starts side by side are ten descents."""
  inner = wj.InnerLoop(surfaces.loss(surfaces.plain), rules.sgd(0.05), 10)
  task = surfaces.sampler(3)(jax.random.key(4))
  together = wj.adapt(inner, wj.MetaParams(jnp.zeros((3, 2))), task, jax.random.key(0)).final.params
  start = task.support.start[1:2]
  alone = wj.Task(task.support._replace(start=start), task.query)
  params = wj.adapt(inner, wj.MetaParams(jnp.zeros((1, 2))), alone, jax.random.key(0)).final.params
  np.testing.assert_allclose(together[1], params[0], rtol=1e-5)
  assert np.all(
    surfaces.height(task.support.surface, task.support.start + together) <= surfaces.height(*task.support[::-1])
  )


def test_num_starts_is_checked():
  with pytest.raises(ValueError, match="num_starts"):
    surfaces.sampler(0)
