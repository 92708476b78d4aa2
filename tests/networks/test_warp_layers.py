from __future__ import annotations

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks
from warpjax.networks import Warp, WarpSpec

KINDS = ("linear", "conv1x1", "conv3x3", "scale")
# The capacity ladder of the paper's appendix F: number of parameters at width 4, and the names in a layer.
LADDER = {
  "scale": (WarpSpec("scale"), 4, {"scale_0"}),
  "1x1": (WarpSpec("conv1x1"), 20, {"conv1x1_0"}),
  "3x3": (WarpSpec(), 148, {"conv3x3_0"}),
  "3x3 relu": (WarpSpec(activation=nn.relu), 148, {"conv3x3_0"}),
  "3x3 norm relu": (WarpSpec(activation=nn.relu, batch_norm=True), 156, {"norm_in_0", "conv3x3_0"}),
  "3x3 norm residual relu": (
    WarpSpec(activation=nn.relu, batch_norm=True, residual=True),
    164,
    {"norm_in_0", "conv3x3_0", "norm_out_0"},
  ),
  "2-layer 3x3 norm residual": (
    WarpSpec(batch_norm=True, residual=True, num_layers=2),
    328,
    {f"{name}_{i}" for name in ("norm_in", "conv3x3", "norm_out") for i in range(2)},
  ),
}


@pytest.fixture
def x():
  return jax.random.normal(jax.random.key(1), (3, 6, 5, 4))


def initial(spec, x):
  return toy.init(Warp(spec), x)


@pytest.mark.parametrize("rung", LADDER)
def test_the_capacity_ladder(rung, x):
  spec, num_parameters, names = LADDER[rung]
  outputs, variables = jax.eval_shape(Warp(spec).init_with_output, jax.random.key(0), x)
  assert outputs.shape == x.shape
  assert set(variables["params"]) == names
  assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == num_parameters


def test_the_order_in_a_layer_is_norm_kernel_activation_sum_norm(x):
  spec = WarpSpec("conv1x1", activation=nn.relu, batch_norm=True, residual=True)
  outputs, variables = toy.jit(Warp(spec).init_with_output)(jax.random.key(0), x)
  normalize = lambda h: (h - h.mean((0, 1, 2))) / jnp.sqrt(h.var((0, 1, 2)) + 1e-5)
  kernel, bias = (variables["params"]["conv1x1_0"][name] for name in ("kernel", "bias"))
  np.testing.assert_allclose(outputs, normalize(nn.relu(normalize(x) @ kernel[0, 0] + bias) + x), atol=1e-4)


def test_biases_start_at_random_within_the_bound_of_the_fan_in(x):
  biases = lambda **settings: initial(WarpSpec(**settings), x)["params"]["conv3x3_0"]["bias"]
  bias = biases()
  assert 0 < np.abs(bias).max() <= (9 * x.shape[-1]) ** -0.5 and np.unique(bias).size == bias.size
  assert not biases(bias_init=None).any() and not biases(identity_init=True).any()


def test_a_residual_between_different_widths_goes_through_a_1x1_kernel(x):
  spec = WarpSpec(residual=True, num_layers=2, hidden_width=6)
  outputs, variables = jax.eval_shape(Warp(spec).init_with_output, jax.random.key(0), x)
  assert outputs.shape == x.shape
  assert variables["params"]["residual_0"]["kernel"].shape == (4, 6)
  assert variables["params"]["residual_1"]["kernel"].shape == (6, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
  "activation",
  [None, nn.relu, pytest.param(jnp.tanh, marks=pytest.mark.slow)],
  ids=["linear", "relu", "tanh"],
)
@pytest.mark.parametrize("batch_norm", [pytest.param(False, marks=pytest.mark.slow), True], ids=["", "norm"])
def test_identity_init_is_the_identity_exactly_and_can_leave_it(kind, activation, batch_norm, x):
  warp = Warp(WarpSpec(kind, activation, batch_norm, num_layers=2, identity_init=True))
  loss = lambda params: jnp.sum(warp.apply({"params": params}, x, mutable=["batch_stats"])[0] ** 3)

  @toy.jit
  def start(key):
    outputs, variables = warp.init_with_output(key, x)
    return outputs, jax.grad(loss)(variables["params"])

  outputs, gradient = start(jax.random.key(0))
  np.testing.assert_array_equal(outputs, x)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-3


@pytest.mark.parametrize("preset", ["conv4", pytest.param("mlp", marks=pytest.mark.slow)])
def test_a_network_with_identity_warps_equals_the_network_without(preset, x64):
  """To the last digits of double precision, as two programs may round differently."""
  x = jax.random.normal(jax.random.key(1), (5, 8, 8, 1) if preset == "conv4" else (5, 1))
  make = {
    "conv4": lambda warp: networks.Conv4(num_classes=3, width=4, num_blocks=1, warp=warp),
    "mlp": lambda warp: networks.MLP(features=(6, 6), warp=warp),
  }[preset]
  kind = "conv3x3" if preset == "conv4" else "linear"
  warped = networks.from_linen(make(WarpSpec(kind, identity_init=True)), expect_shared=True)
  bare = networks.from_linen(make(None))
  params, shared = toy.init(warped, x)
  assert set(shared) == ({"warp_0"} if preset == "conv4" else {"warp_0", "warp_1"})
  assert jax.tree.structure(params) == jax.tree.structure(jax.eval_shape(bare.init, jax.random.key(0), x)[0])

  def loss(network, shared, params):
    outputs = network.apply(params, shared, x)
    return jnp.sum(outputs**2), outputs

  # Not under jit, where each network's own fusions round in their own way.
  derivative = lambda *args: jax.grad(functools.partial(loss, *args), has_aux=True)
  chex.assert_trees_all_equal(derivative(warped, shared)(params), derivative(bare, ())(params))


@pytest.mark.parametrize("spec", [WarpSpec("linear", head=True), None], ids=["head", "none"])
def test_a_warp_after_the_head_only_when_asked(spec):
  network = networks.from_linen(networks.MLP(features=(6,), num_outputs=2, warp=spec))
  params, shared = jax.eval_shape(network.init, jax.random.key(0), jnp.ones((5, 1)))
  assert set(params) == {"dense_0", "head"}
  assert shared == () if spec is None else set(shared) == {"warp_0", "warp_head"}
  assert params["head"]["kernel"].shape == ((6, 2) if spec is None else (6, 6))


HEADED = {
  "mlp": lambda spec: networks.MLP(features=(4,), num_outputs=7, warp=spec._replace(kind="linear")),
  "conv4": lambda spec: networks.warpgrad_omniglot(7, width=4, num_blocks=2, warp=spec),
  "resnet12": lambda spec: networks.ResNet12(num_classes=7, widths=(4,), warp=spec),
}


@pytest.mark.parametrize("name", ["mlp", "conv4", pytest.param("resnet12", marks=pytest.mark.slow)])
def test_warp_after_the_head_starts_as_the_spec_says(x, name):
  spec = WarpSpec(head=True, kernel_init=jax.nn.initializers.ones, bias_init=jax.nn.initializers.constant)
  for given, bias in ((spec, 4.0), (spec._replace(identity_init=True), 0.0)):
    network = networks.from_linen(HEADED[name](given))
    params, shared = toy.init(network, x)
    assert params["head"]["kernel"].shape == (4, 4)
    assert jax.eval_shape(network.apply, params, shared, x).shape[-1] == 7
    np.testing.assert_array_equal(shared["warp_head"]["kernel"], np.ones((4, 7)))
    np.testing.assert_array_equal(shared["warp_head"]["bias"], np.full(7, bias))


def test_bad_specs_are_refused(x):
  for spec, message in (
    (WarpSpec("conv5x5"), "warp.kind must be one of"),
    (WarpSpec(hidden_width=8, identity_init=True), "warp.hidden_width must be None"),
    (WarpSpec("scale", hidden_width=8), "warp.hidden_width must be None"),
  ):
    with pytest.raises(ValueError, match=message):
      Warp(spec).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match="warp.kind must be one of 'linear', 'scale'; got"):
    networks.MLP(warp=WarpSpec()).init(jax.random.key(0), jnp.ones((2, 1)))
