"""Forward gradients: exact along each direction, unbiased over them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toy
from warpjax import rules
from warpjax.meta_gradients import forward_gradient, unrolled
from warpjax.meta_gradients.directions import directions
from warpjax.meta_gradients.forward_gradient import _STREAM

pytestmark = pytest.mark.usefixtures("strict")


def test_each_direction_is_weighted_by_its_slope():
  rule = rules.meta_sgd((0.01, 0.2))
  inner, meta_params, task = toy.loop(rule), toy.meta_params(rule), toy.task()
  estimate = toy.jit(forward_gradient(inner, 3))
  (value, aux), grads = estimate(meta_params, task, toy.key())
  exact = toy.jit(unrolled(inner, "reverse"))
  toy.assert_close((value, aux), exact(meta_params, task, toy.key())[0])
  draw = toy.jit(lambda key: directions(jax.random.fold_in(key, _STREAM), meta_params, 3))
  vectors = jax.device_get(draw(toy.key()))
  each = [jax.tree.map(lambda leaf, i=i: leaf[i], vectors) for i in range(3)]
  # One way: the reverse-mode gradient. The other: finite differences.
  gradient = jax.device_get(exact(meta_params, task, toy.key())[1])
  along = lambda v: sum(map(np.vdot, jax.tree.leaves(gradient), jax.tree.leaves(v)))
  differences = [toy.slope(lambda point: exact(point, task, toy.key())[0][0], meta_params, v) for v in each]
  for slopes, rtol in (([along(v) for v in each], 1e-9), (differences, 1e-6)):
    expected = jax.tree.map(lambda *leaves, s=slopes: sum(a * b for a, b in zip(s, leaves, strict=True)) / 3, *each)
    toy.assert_close(grads, expected, rtol=rtol, atol=1e-8)


def test_all_orthogonal_directions_make_the_gradient():
  inner, meta_params = toy.loop(), toy.meta_params()
  size = sum(leaf.size for leaf in jax.tree.leaves(meta_params))
  every = forward_gradient(inner, size, distribution="orthogonal")
  run = lambda estimate: toy.run(estimate, meta_params, toy.task())
  toy.assert_close(run(every), run(unrolled(inner)), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("distribution", ["normal", "rademacher", "orthogonal"])
def test_the_second_moment_of_directions_is_the_identity(distribution):
  tree = {"a": jnp.zeros(2), "b": jnp.zeros((1, 2))}
  draw = jax.jit(jax.vmap(lambda key: directions(key, tree, 3, distribution)))
  drawn = draw(jax.random.split(toy.key(), 10_000))
  vectors = np.concatenate([np.asarray(leaf).reshape(30_000, -1) for leaf in jax.tree.leaves(drawn)], axis=1)
  np.testing.assert_allclose(vectors.T @ vectors / len(vectors), np.eye(4), atol=0.05)
  np.testing.assert_allclose(vectors.mean(0), 0, atol=0.05)


def test_many_draws_average_to_the_gradient():
  inner, meta_params, task = toy.loop(num_steps=2), toy.meta_params(), toy.task()
  estimate = forward_gradient(inner, 2, distribution="rademacher")
  draws = toy.jit(jax.vmap(lambda key: estimate(meta_params, task, key)[1]))(jax.random.split(toy.key(), 4000))
  exact = toy.run(unrolled(inner), meta_params, task)[1]

  def within_five_errors(drawn, expected):
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - expected) < 5 * error + 1e-12)
    assert np.all(error < 0.2 * optax.tree.norm(exact))

  jax.tree.map(within_five_errors, draws, exact)


def test_bad_input():
  with pytest.raises(ValueError, match="num_directions must be an integer of at least 1; got 0"):
    forward_gradient(toy.loop(), 0)
  with pytest.raises(ValueError, match="distribution must be one of 'normal', 'rademacher', 'orthogonal'; got 'basis'"):
    forward_gradient(toy.loop(), distribution="basis")
  with pytest.raises(ValueError, match="there are 2 orthogonal directions; got 3"):
    directions(toy.key(), jnp.zeros(2), 3, "orthogonal")
