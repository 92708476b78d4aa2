from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from tests import toy
from warpjax.networks import Conv4, from_linen, max_pool


def derivatives(pool, x):
  """Value, gradient, and second derivative forward-over-reverse and reverse-over-reverse."""
  gradient = jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))
  tangent = jnp.cos(jax.lax.stop_gradient(x))
  forward = jax.jvp(gradient, (x,), (tangent,))[1]
  return pool(x), gradient(x), forward, jax.grad(lambda x: jnp.vdot(gradient(x), tangent))(x)


@pytest.mark.gpu
@pytest.mark.parametrize(
  ("shape", "size", "padding"),
  [((2, 6, 8, 3), 2, "VALID"), ((2, 7, 5, 3), 2, "VALID"), ((2, 7, 5, 3), 2, "SAME"), ((1, 7, 8, 2), 3, "SAME")],
)
def test_value_gradient_and_second_derivative_equal_flax(shape, size, padding, x64):
  x = jax.random.normal(jax.random.key(0), shape)
  stock_pool = lambda x: nn.max_pool(x, (size, size), strides=(size, size), padding=padding)
  ours, stock = toy.jit(
    lambda x: (derivatives(lambda x: max_pool(x, size, padding=padding), x), derivatives(stock_pool, x))
  )(x)
  for a, e in zip(ours, stock, strict=True):
    np.testing.assert_allclose(a, e, rtol=0, atol=1e-12)


def test_the_first_of_ties_takes_the_gradient_as_in_flax():
  x = jnp.array([[3.0, 3.0], [1.0, 2.0]]).reshape(1, 2, 2, 1)
  gradient = toy.jit(jax.grad(lambda x: jnp.sum(max_pool(x))))(x)
  np.testing.assert_array_equal(gradient.reshape(4), [1.0, 0.0, 0.0, 0.0])
  ties = jax.random.randint(jax.random.key(0), (2, 6, 9, 3), 0, 3).astype(float)
  stock = lambda x: nn.max_pool(x, (3, 3), strides=(3, 3))
  gradient = lambda pool: jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))
  ours, theirs = toy.jit(lambda x: (gradient(partial(max_pool, size=3))(x), gradient(stock)(x)))(ties)
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
  ("size", "dtype"),
  [
    (3, jnp.float32),
    (2, jnp.bfloat16),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in ((2, jnp.float32), (3, jnp.bfloat16))),
  ],
)
def test_a_nan_is_passed_on_from_each_place_of_a_window_and_takes_the_gradient(size, dtype):
  places = jnp.eye(size**2, dtype=bool)  # a batch of one window for each place
  windows = jnp.where(places, jnp.nan, jnp.arange(size**2, dtype=dtype)).reshape(-1, size, size, 1)
  x = jnp.concatenate([windows, jnp.full_like(windows, 5)], axis=1)

  @jax.jit
  def value_and_gradient(x):
    pooled, pull = jax.vjp(partial(max_pool, size=size), x)
    return pooled, pull(jnp.ones_like(pooled))[0]

  pooled, gradient = value_and_gradient(x)
  np.testing.assert_array_equal(pooled.astype(float).reshape(-1, 2), [[np.nan, 5.0]] * size**2)
  np.testing.assert_array_equal(gradient[:, :size].astype(float).reshape(places.shape), places)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_window_loses_its_gradient_or_takes_it_twice(dtype):
  """What is added to every element moves the pooled sum by the number of windows, also where elements tie."""
  strokes = jax.random.bernoulli(jax.random.key(0), 0.2, (2, 5, 5, 1)).repeat(3, 1).repeat(3, 2)
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 3), dtype)
  numbers = ("NHWC", "HWIO", "NHWC")

  def summed(offset, kernel, scale):
    x = jax.lax.conv_general_dilated(strokes.astype(dtype), kernel, (1, 1), "SAME", dimension_numbers=numbers)
    normal = x * scale - jnp.mean(x) * scale
    return jnp.sum(max_pool(nn.leaky_relu(normal) + offset).astype(jnp.float32))

  gradient = toy.optimized(jax.vmap(jax.grad(summed), (None, 0, None)))
  windows = gradient(jnp.zeros((2, 1, 1, 3), dtype), jnp.stack([kernel, kernel[::-1]]), jnp.asarray(1.3, dtype))
  np.testing.assert_array_equal(windows.astype(float), jnp.full((2, 2, 1, 1, 3), 7 * 7))


def test_compilation_does_not_lose_the_gradient_of_a_window(x64):
  """The mask `x == max(x)` was empty where XLA computed x twice, with another rounding: off by 40% to 60%."""
  module = Conv4(
    num_classes=3,
    width=4,
    num_blocks=1,
    layers=("conv", "norm", "leaky_relu", "pool"),
    strides=1,
    readout="flatten",
    conv_bias=True,
    norm_scale=True,
  )
  network, seeds = from_linen(module), range(4)
  images = [jax.random.normal(jax.random.key(seed), (6, 8, 8, 1)) for seed in seeds]
  start, unravel = ravel_pytree(toy.init(network, images[0])[0])
  loss = lambda params, x: jnp.mean(jnp.sin(network.apply(unravel(params), (), x)) ** 2)
  gradient, steps = toy.optimized(jax.grad(loss)), 1e-5 * jnp.eye(start.size)
  difference = lambda params, x: jax.lax.map(lambda step: loss(params + step, x) - loss(params - step, x), steps) / 2e-5
  compiled = toy.jit(difference)
  for seed, x in zip(seeds, images, strict=True):
    params = start + 0.1 * jax.random.normal(jax.random.key(seed + 2), start.shape)
    wanted = compiled(params, x)
    np.testing.assert_allclose(gradient(params, x), wanted, rtol=0, atol=1e-7 * float(jnp.linalg.norm(wanted)))


def test_windows_of_one_pixel_are_the_image():
  x = jax.random.normal(jax.random.key(0), (1, 3, 2, 2))
  both = toy.jit(lambda x: (derivatives(partial(max_pool, size=1), x), derivatives(lambda x: x, x)))
  for ours, wanted in zip(*both(x), strict=True):
    np.testing.assert_allclose(ours, wanted, rtol=1e-6)


def test_bad_arguments_are_refused():
  for size in (0, 2.0, (2, 2)):
    with pytest.raises(ValueError, match="size must be an integer of at least 1; got"):
      max_pool(jnp.ones((1, 4, 4, 1)), size)
  with pytest.raises(ValueError, match="x must be floating-point to be pooled; got int32"):
    max_pool(jnp.ones((1, 4, 4, 1), int), padding="SAME")
  with pytest.raises(ValueError, match="padding must be"):
    max_pool(jnp.ones((1, 4, 4, 1)), padding="FULL")
  with pytest.raises(ValueError, match="x must be at least 2 x 2"):
    max_pool(jnp.ones((1, 1, 4, 1)))


def test_the_value_and_every_derivative_read_one_search_for_the_largest():
  # Two searches are two passes over the activations: XLA does not unite them within a loop.
  searches = lambda f: (
    jax.jit(f).lower(jnp.ones((1, 4, 4, 1))).as_text().count("-> (tensor<1x2x2x1xf32>, tensor<1x2x2x1xi32>)")
  )
  value_and_gradient = jax.value_and_grad(lambda x: jnp.sum(jnp.sin(max_pool(x))))
  assert searches(value_and_gradient) == 1
  assert searches(lambda x: jax.jvp(value_and_gradient, (x,), (x,))) == 1
