"""Batch norm as one product and one sum, against flax's."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests import toy
from warpjax.networks import BatchNorm

SHAPE = (3, 4, 2, 5)


def modules(**options):
  return BatchNorm(momentum=0.9, epsilon=1e-3, **options), nn.BatchNorm(momentum=0.9, epsilon=1e-3, **options)


def images(dtype=None):
  return (2 + 3 * jax.random.normal(jax.random.key(0), SHAPE)).astype(dtype or float)


def start(module, x):
  """The outputs, and the variables."""
  return toy.jit(lambda x: module.init_with_output(jax.random.key(0), x, use_running_average=False))(x)


def variables(module, x):
  _, found = start(module, x)
  leaves, treedef = jax.tree.flatten(found)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  further = [0.3 * jax.random.uniform(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
  return treedef.unflatten([leaf + more for leaf, more in zip(leaves, further, strict=True)])


# With a mask under all options.
VALUES = [
  pytest.param(options, given, marks=pytest.mark.slow if options and given != "masked" else ())
  for given in (False, True, "masked")
  for options in ({}, {"use_scale": False}, {"use_bias": False})
]


@pytest.mark.parametrize(("options", "given"), VALUES)
def test_values_statistics_and_two_derivatives_are_flax_s(x64, options, given):
  ours, flax_s = modules(param_dtype=jnp.float64, **options)
  x = images()
  begun = variables(ours, x)
  mask = jnp.arange(SHAPE[1])[None, :, None, None] < 3 if given == "masked" else None
  assert jax.tree.map(jnp.shape, begun) == jax.tree.map(jnp.shape, variables(flax_s, x))

  def results(module):
    def value(params, x):
      all_variables = {"batch_stats": begun["batch_stats"]} | ({"params": params} if params else {})
      y, updated = module.apply(all_variables, x, given is True, mask=mask, mutable=["batch_stats"])
      return jnp.mean(jnp.sin(y)), (y, updated)

    gradient = lambda params, x: jax.grad(value, argnums=(0, 1), has_aux=True)(params, x)[0]
    at = (begun.get("params", {}), x)
    forward = jax.jvp(gradient, at, jax.tree.map(jnp.cos, at))[1]
    return value(*at)[1], gradient(*at), forward

  found, wanted = (jax.tree.leaves(toy.jit(lambda module=module: results(module))()) for module in (ours, flax_s))
  for actual, expected in zip(found, wanted, strict=True):
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)  # flax keeps statistics in single precision


def test_derivatives_by_finite_differences(x64):
  module, _ = modules(param_dtype=jnp.float64)
  x = images()
  params = variables(module, x)["params"]

  @jax.jit
  def apply(params, x):
    return module.apply({"params": params}, x, use_running_average=False, mutable=["batch_stats"])[0]

  check_grads(apply, (params, x), order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
@pytest.mark.parametrize("input_dtype", ["bfloat16", "float32"])
def test_dtypes_are_flax_s(dtype, input_dtype):
  x = images(input_dtype)
  outputs = []
  for module in modules(dtype=dtype and jnp.dtype(dtype)):
    y, updated = start(module, x)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    outputs.append(y)
  assert outputs[0].dtype == outputs[1].dtype
  np.testing.assert_allclose(
    *(np.asarray(y, np.float32) for y in outputs), atol=0.04 if y.dtype == "bfloat16" else 1e-5
  )


def test_a_channel_that_does_not_vary_stays_finite():
  module, _ = modules()
  x = images().at[..., 0].set(1e3)
  y, _ = start(module, x)
  assert jnp.isfinite(y).all() and abs(y[..., 0]).max() < 1e-2


def test_a_channel_that_does_not_vary_has_every_derivative(x64):
  """From a constant, y(s) = s t / sqrt(s^2 var(t) + eps) along t, of third derivative -3 t var(t) / eps^1.5."""
  module = BatchNorm(use_running_average=False, epsilon=0.5, use_bias=False, use_scale=False, dtype=jnp.float64)
  t = images()[..., :1]
  t = t - jnp.mean(t)
  apply = lambda x: module.apply({}, x, mutable=["batch_stats"])[0]
  derivative = lambda f: lambda x: jax.jvp(f, (x,), (t,))[1]
  third = toy.jit(derivative(derivative(derivative(apply))))(jnp.zeros_like(t))
  np.testing.assert_allclose(third, -3 * t * jnp.mean(t**2) / 0.5**1.5, rtol=1e-6)


@pytest.mark.parametrize("options", [{"axis": 1}, {"axis_name": "devices"}, {"use_fast_variance": False}])
def test_what_it_does_not_do_is_refused(options):
  module, _ = modules(**options)
  with pytest.raises(ValueError, match=f"{next(iter(options))} must be .*flax.linen.BatchNorm has others"):
    module.init(jax.random.key(0), images(), use_running_average=False)
