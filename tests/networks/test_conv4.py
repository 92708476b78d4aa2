from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests import toy
from warpjax import networks

SMALL = {"num_classes": 3, "width": 4}


@pytest.fixture
def x():
  return jax.random.uniform(jax.random.key(1), (6, 16, 16, 1))


def loss_of(network, shared, x):
  return lambda params: jnp.mean(jnp.sin(network.apply(params, shared, x)) ** 2)


@pytest.mark.slow
def test_a_bias_before_batch_norm_changes_nothing(x, x64):
  network = networks.from_linen(networks.Conv4(conv_bias=True, **SMALL))
  params, _ = network.init(jax.random.key(0), x)
  moved = jax.tree.map(lambda leaf: leaf, params)
  moved["conv_1"]["bias"] = moved["conv_1"]["bias"] + 1.0
  np.testing.assert_allclose(network.apply(moved, (), x), network.apply(params, (), x), atol=1e-10)
  assert np.abs(jax.grad(loss_of(network, (), x))(params)["conv_1"]["bias"]).max() < 1e-12


@pytest.mark.parametrize(
  "module",
  [
    pytest.param(networks.Conv4(**SMALL), id="stride"),
    pytest.param(
      networks.warpgrad_omniglot(3, width=4, warp=networks.WarpSpec()), id="pool_and_warp", marks=pytest.mark.slow
    ),
  ],
)
def test_the_fast_convolution_changes_neither_gradient_nor_meta_gradient(module, x, x64):
  patches = functools.partial(networks.conv_general_dilated, lowering="patches")
  ours = networks.from_linen(module.clone(conv_general_dilated=patches))
  stock = networks.from_linen(module.clone(conv_general_dilated=lax.conv_general_dilated))
  params, shared = toy.init(ours, x)

  def meta_gradient(network):
    loss = loss_of(network, shared, x)
    adapted = lambda params: jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
    return jax.grad(lambda params: loss(adapted(params)))(params)

  both = toy.jit(lambda: (meta_gradient(ours), meta_gradient(stock)))()
  chex.assert_trees_all_close(*both, rtol=0, atol=1e-9)


def test_parameters_are_single_precision_by_default(x):
  params, _ = jax.eval_shape(networks.from_linen(networks.Conv4(**SMALL)).init, jax.random.key(0), x)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("warp", [None, networks.WarpSpec(batch_norm=True, residual=True)])
def test_everything_is_double_precision_under_x64(warp, x, x64):
  network = networks.from_linen(networks.Conv4(warp=warp, **SMALL))
  params, shared = jax.eval_shape(network.init, jax.random.key(0), x.astype(float))
  outputs = jax.eval_shape(network.apply, params, shared, x.astype(float))
  assert {leaf.dtype for leaf in jax.tree.leaves((params, shared, outputs))} == {jnp.dtype("float64")}


@pytest.mark.slow
def test_compute_dtype_is_a_setting_and_parameters_keep_theirs(x):
  network = networks.from_linen(networks.Conv4(dtype=jnp.bfloat16, **SMALL))
  params, _ = network.init(jax.random.key(0), x)
  gradient = jax.grad(lambda p: jnp.sum(network.apply(p, (), x).astype(jnp.float32)))(params)
  assert network.apply(params, (), x).dtype == jnp.bfloat16
  assert {leaf.dtype for leaf in jax.tree.leaves((params, gradient))} == {jnp.dtype("float32")}


def test_a_second_call_does_not_compile_again(x):
  network = networks.from_linen(networks.Conv4(**SMALL))
  params, _ = toy.init(network, x)
  traces = []

  @jax.jit
  def apply(params, x):
    traces.append(None)
    return network.apply(params, (), x)

  apply(params, x)
  apply(jax.tree.map(lambda leaf: 2 * leaf, params), 2 * x)
  assert len(traces) == 1


def test_per_task_weights_under_vmap_equal_a_loop(x):
  network = networks.from_linen(networks.Conv4(**SMALL))
  params, _ = toy.init(network, x)
  tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.7 * leaf + 0.01]), params)
  images = jnp.stack([x, x[::-1]])
  apply = lambda p, x: network.apply(p, (), x)
  batched, one = toy.jit(jax.vmap(apply))(tasks, images), toy.jit(apply)
  for i in range(2):
    single = one(jax.tree.map(lambda leaf, i=i: leaf[i], tasks), images[i])
    np.testing.assert_allclose(batched[i], single, rtol=1e-4, atol=1e-5)


def test_a_leaky_unit_lets_a_hundredth_of_what_is_below_zero_through(x):
  make = lambda last: networks.Conv4(layers=("conv", last), num_blocks=1, readout="flatten", head_init=None)
  variables = toy.init(make("relu"), x)
  relu, leaky = (toy.jit(make(last).apply)(variables, x) for last in ("relu", "leaky_relu"))
  inverse = toy.jit(make("relu").apply)(_negated(variables), x)
  np.testing.assert_allclose(leaky, relu - 0.01 * inverse, rtol=1e-4, atol=1e-5)


def _negated(variables):
  params = variables["params"]
  return {"params": {**params, "conv_0": jax.tree.map(jnp.negative, params["conv_0"])}}


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"layers": ("conv", "relu", "norms")}, "layers must have 'conv' once"),
    ({"layers": ("norm", "relu")}, "layers must have 'conv' once"),
    ({"readout": "max"}, "readout must be one of"),
    ({"warp": networks.WarpSpec("conv5x5")}, "warp.kind must be one of"),
    ({"warp": networks.WarpSpec(num_layers=0)}, "warp=None for no warp-layers. must be an integer of at least 1"),
    ({"layers": ("conv", "pool"), "num_blocks": 5, "strides": 1}, "x must be at least 2 x 2"),
  ],
)
def test_bad_settings_are_refused(settings, message, x):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(networks.from_linen(networks.Conv4(**settings)).init, jax.random.key(0), x)


def test_an_image_without_a_channel_axis_is_refused(x):
  with pytest.raises(ValueError, match="x must be \\[batch, height, width, channels\\], got shape \\(6, 16, 16\\)"):
    networks.from_linen(networks.Conv4()).init(jax.random.key(0), x[..., 0])
