from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax.networks import max_pool

quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def derivatives(pool, x):
  """Value, gradient, and second derivative forward-over-reverse and reverse-over-reverse."""
  gradient = jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))
  tangent = jnp.cos(jax.lax.stop_gradient(x))
  forward = jax.jvp(gradient, (x,), (tangent,))[1]
  return pool(x), gradient(x), forward, jax.grad(lambda x: jnp.vdot(gradient(x), tangent))(x)


@pytest.mark.parametrize(
  ("shape", "size", "padding"),
  [((2, 6, 8, 3), 2, "VALID"), ((2, 7, 5, 3), 2, "VALID"), ((2, 7, 5, 3), 2, "SAME"), ((1, 7, 8, 2), 3, "SAME")],
)
def test_value_gradient_and_second_derivative_equal_flax(shape, size, padding, x64):
  x = jax.random.normal(jax.random.key(0), shape)
  stock_pool = lambda x: nn.max_pool(x, (size, size), strides=(size, size), padding=padding)
  ours, stock = quick_jit(
    lambda x: (derivatives(lambda x: max_pool(x, size, padding=padding), x), derivatives(stock_pool, x))
  )(x)
  for a, e in zip(ours, stock, strict=True):
    np.testing.assert_allclose(a, e, rtol=0, atol=1e-12)


def test_ties_share_the_gradient():
  x = jnp.array([[3.0, 3.0], [1.0, 2.0]]).reshape(1, 2, 2, 1)
  gradient = jax.grad(lambda x: jnp.sum(max_pool(x)))(x)
  np.testing.assert_array_equal(gradient.reshape(4), [0.5, 0.5, 0.0, 0.0])


def test_nans_are_passed_on():
  x = jnp.ones((1, 4, 2, 1)).at[0, 1, 0, 0].set(jnp.nan).at[0, 2, 0, 0].set(5.0)
  assert jnp.isnan(max_pool(x)[0, 0, 0, 0])
  assert max_pool(x)[0, 1, 0, 0] == 5.0


def test_bad_arguments_are_refused():
  with pytest.raises(ValueError, match="padding must be"):
    max_pool(jnp.ones((1, 4, 4, 1)), padding="FULL")
  with pytest.raises(ValueError, match="x must be at least 2 x 2"):
    max_pool(jnp.ones((1, 1, 4, 1)))
