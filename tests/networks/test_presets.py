from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks

OMNIGLOT, MINI = (28, 28, 1), (84, 84, 3)
# preset, image, width of the features before the head, classes, whether batch norm has a scale
CASES = {
  "maml_omniglot": (networks.maml_omniglot, OMNIGLOT, 64, 5, False),
  "maml_mini_imagenet": (networks.maml_mini_imagenet, MINI, 800, 5, False),
  "reptile_omniglot": (networks.reptile_omniglot, OMNIGLOT, 256, 5, True),
  "reptile_mini_imagenet": (networks.reptile_mini_imagenet, MINI, 1152, 5, True),
  "mamlpp_mini_imagenet": (networks.mamlpp_mini_imagenet, MINI, 1200, 5, True),
  "warpgrad_mini_imagenet": (networks.warpgrad_mini_imagenet, MINI, 1600, 5, True),
  "imaml_omniglot": (networks.imaml_omniglot, OMNIGLOT, 256, 5, True),
  "warpgrad_omniglot": (networks.warpgrad_omniglot, OMNIGLOT, 64, 20, True),
  "meta_sgd_omniglot": (networks.meta_sgd_omniglot, OMNIGLOT, 32, 5, True),
}


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def initial(module, shape):
  return toy.init(networks.from_linen(module), jnp.zeros(shape))[0]


def shapes(module, image):
  network = networks.from_linen(module)
  x = jax.ShapeDtypeStruct((3, *image), jnp.float32)
  params, shared = jax.eval_shape(network.init, jax.random.key(0), x)
  return params, shared, jax.eval_shape(network.apply, params, shared, x)


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_the_papers(name):
  preset, image, features, classes, scale = CASES[name]
  params, shared, outputs = shapes(preset(), image)
  assert outputs.shape == (3, classes)
  assert params["head"]["kernel"].shape == (features, classes)
  assert shared == ()
  assert {leaf for i in range(4) for leaf in params[f"norm_{i}"]} == ({"bias", "scale"} if scale else {"bias"})
  assert ("bias" in params["conv_0"]) == (name == "warpgrad_omniglot")


def test_maml_omniglot_is_the_default_of_conv4():
  assert networks.maml_omniglot() == networks.Conv4()
  params, _, _ = shapes(networks.Conv4(), OMNIGLOT)
  assert count(params) == 9 * 64 + 3 * 9 * 64 * 64 + 4 * 64 + 64 * 5 + 5


def test_warpgrad_omniglot_has_the_released_numbers_of_parameters():
  params, shared, _ = shapes(networks.warpgrad_omniglot(warp=networks.WarpSpec()), OMNIGLOT)
  assert count(params) == 113_236
  assert count(shared) == 147_712


def test_meta_sgd_has_a_fully_connected_layer_of_32():
  params, _, _ = shapes(networks.meta_sgd_omniglot(), OMNIGLOT)
  assert params["dense_0"]["kernel"].shape == (64, 32)


def test_overrides_win():
  module = networks.reptile_mini_imagenet(20, width=48, readout="mean")
  assert (module.num_classes, module.width, module.readout, module.pool_padding) == (20, 48, "mean", "SAME")


@pytest.mark.slow
def test_imaml_initialisers():
  params = initial(networks.imaml_omniglot(), (1, *OMNIGLOT))
  bound = 1.73 * np.sqrt(6 / (9 * 64 + 9 * 64))
  assert 0.99 * bound < np.abs(params["conv_1"]["kernel"]).max() <= bound
  bias = params["head"]["bias"]
  assert np.all((bias >= 0) & (bias <= 0.05)) and np.any(bias > 0)


def test_maml_initialisers():
  params = initial(networks.maml_omniglot(num_classes=100), (1, *OMNIGLOT))
  assert 0.95 < np.std(params["head"]["kernel"]) < 1.05
  bound = np.sqrt(6 / (9 * 64 + 9 * 64))
  assert 0.99 * bound < np.abs(params["conv_1"]["kernel"]).max() <= bound


def test_sinusoid_networks():
  for preset, widths in ((networks.maml_sinusoid, (40, 40)), (networks.reptile_sinusoid, (64, 64))):
    params = initial(preset(), (10, 1))
    assert tuple(params[f"dense_{i}"]["kernel"].shape[1] for i in range(2)) == widths
    assert jax.eval_shape(networks.from_linen(preset()).apply, params, (), jnp.ones((10, 1))).shape == (10, 1)
  assert np.abs(initial(networks.maml_sinusoid(), (1, 1))["dense_1"]["kernel"]).max() <= 0.02


def test_warpgrad_s_head_has_pytorch_s_biases():
  params = initial(networks.warpgrad_omniglot(), (1, *OMNIGLOT))
  assert 0.05 < np.abs(params["head"]["bias"]).max() <= 1 / 8
  assert 0 < np.abs(params["conv_1"]["bias"]).max() <= 1 / 24


def test_the_units_of_reptile_s_demo_turn_at_points_of_their_own():
  params = initial(networks.reptile_sinusoid(), (1, 1))
  for layer, fan_in in (("dense_0", 1), ("dense_1", 64), ("head", 64)):
    for value in params[layer].values():
      assert 0 < np.abs(value).max() <= fan_in**-0.5 and np.unique(value).size == value.size
