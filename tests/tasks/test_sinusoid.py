from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax.tasks import sinusoid

KEYS = jax.random.split(jax.random.key(0), 2000)
# Amplitude, frequency and phase of y = A sin(w x + b); Finn et al. write A sin(x - phase).
BOUNDS = {
  "maml": ((0.1, 5.0), (1.0, 1.0), (-math.pi, 0.0)),
  "meta_sgd": ((0.1, 5.0), (0.8, 1.2), (0.0, math.pi)),
  "reptile": ((0.1, 5.0), (1.0, 1.0), (0.0, 2 * math.pi)),
}


@pytest.mark.parametrize("variant", BOUNDS)
def test_waves_fill_the_bounds_of_the_paper(variant):
  waves = jax.vmap(lambda key: sinusoid.wave(key, variant))(KEYS)
  for values, (low, high) in zip(waves, BOUNDS[variant], strict=True):
    slack = 0.01 * (high - low)
    assert low <= values.min() <= low + slack and high - slack <= values.max() <= high
    np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.03 * (high - low) + 1e-6)


@pytest.mark.parametrize("variant", BOUNDS)
def test_a_task_is_on_the_wave_of_its_key(variant):
  key = jax.random.key(3)
  wave = sinusoid.wave(key, variant)
  for x, y in sinusoid.sampler(variant, shots=7)(key):
    np.testing.assert_allclose(y, wave.amplitude * np.sin(wave.frequency * x + wave.phase), atol=1e-5)
    assert x.min() >= -5 and x.max() <= 5


@pytest.mark.parametrize(
  ("variant", "shots", "queries", "sizes"),
  [
    ("maml", 5, None, (5, 5)),
    ("meta_sgd", 5, 20, (5, 20)),
    ("reptile", 10, None, (10, 50)),
    ("reptile", None, None, (50, 50)),
  ],
)
def test_counts(variant, shots, queries, sizes):
  task = sinusoid.sampler(variant, shots=shots, queries=queries)(jax.random.key(0))
  assert tuple(x.shape for x, _ in task) == tuple((size, 1) for size in sizes)


def test_reptile_is_judged_on_a_grid_and_may_train_on_it():
  (x, _), (grid, _) = sinusoid.sampler("reptile", shots=None)(jax.random.key(0))
  np.testing.assert_allclose(grid[:, 0], np.linspace(-5, 5, 50), atol=1e-6)
  np.testing.assert_array_equal(x, grid)


def test_support_and_query_points_differ_and_tasks_differ():
  tasks = jax.jit(jax.vmap(sinusoid.sampler("maml", shots=10)))(KEYS[:50])
  points = np.concatenate([tasks.support[0], tasks.query[0]], axis=1)
  assert len(np.unique(points)) > 990


def test_the_dtype_is_the_default_one():
  assert sinusoid.sampler("maml", shots=3)(jax.random.key(0)).support[1].dtype == jnp.float32
  with jax.enable_x64(True):
    task = sinusoid.sampler("reptile", shots=3)(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(task)} == {jnp.dtype("float64")}


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"variant": "sine"}, "variant must be one of 'maml', 'meta_sgd', 'reptile'; got 'sine'"),
    ({"variant": "maml", "shots": 0}, "shots must be an integer of at least 1; got 0"),
    ({"variant": "maml", "queries": 0}, "queries must be an integer of at least 1; got 0"),
    ({"variant": "maml", "shots": None}, "shots must be a number"),
  ],
)
def test_bad_arguments(kwargs, message):
  with pytest.raises(ValueError, match=message):
    sinusoid.sampler(**kwargs)
