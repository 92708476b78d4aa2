from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks
from warpjax.networks import resnet12

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (3, 16, 16, 3))
TINY = {"num_classes": 2, "widths": (2, 2, 2, 2), "norm_groups": 2}


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_default_has_the_published_number_of_parameters():
  network = networks.from_linen(networks.ResNet12())
  params, shared = jax.eval_shape(network.init, KEY, jax.ShapeDtypeStruct((1, 84, 84, 3), jnp.float32))
  head = params.pop("head")
  assert count(params) == 12_424_320 and shared == ()
  assert head["kernel"].shape == (640, 5)


def test_warp_layers_are_shared_and_after_each_block():
  two = TINY | {"widths": (2, 2)}
  network = networks.from_linen(networks.ResNet12(**two, warp=networks.WarpSpec(identity_init=True)))
  plain = networks.from_linen(networks.ResNet12(**two))
  params, shared = toy.init(network, X)
  assert sorted(shared) == [f"warp_{i}" for i in range(2)]
  whole = toy.jit(network.apply)(params, shared, X)
  np.testing.assert_allclose(whole, toy.jit(plain.apply)(params, (), X), rtol=1e-4, atol=1e-5)


def test_it_drops_where_a_key_rides_with_the_images_and_only_there():
  three = TINY | {"widths": (2, 2, 2)}  # the third drops squares
  network, plain = (networks.from_linen(networks.ResNet12(**three, drop_rate=r), takes_key=True) for r in (0.4, 0.0))
  params, _ = toy.init(network, X)
  apply = toy.jit(lambda x: network.apply(params, (), x))
  np.testing.assert_allclose(apply(X), toy.jit(plain.apply)(params, (), X), rtol=1e-4, atol=1e-5)
  keys = [jax.random.key_data(jax.random.key(i)) for i in range(2)]
  first, again, other = apply((X, keys[0])), apply((X, keys[0])), apply((X, keys[1]))
  np.testing.assert_array_equal(first, again)
  assert not np.allclose(first, other) and not np.allclose(first, apply(X))


@pytest.mark.parametrize(("size", "rate"), [(1, 0.3), (3, 0.1), (5, 0.05)])
def test_drop_block_drops_squares_and_keeps_the_mean(size, rate):
  x = jnp.ones((20, 24, 24, 8))
  y = np.asarray(toy.jit(lambda x: resnet12.drop(KEY, x, rate, size))(x))
  zero = y == 0
  assert rate * 0.7 < zero.mean() < rate * 1.3
  assert y.mean() == pytest.approx(1, rel=1e-5)
  # Every dropped place lies in a dropped square of that side.
  windows = np.lib.stride_tricks.sliding_window_view(zero, (size, size), axis=(1, 2)).all(axis=(-1, -2))
  covered = np.zeros_like(zero)
  for i in range(size):
    for j in range(size):
      covered[:, i : i + windows.shape[1], j : j + windows.shape[2]] |= windows
  np.testing.assert_array_equal(covered, zero)


def test_a_square_is_no_larger_than_the_image():
  assert set(np.unique(resnet12.drop(KEY, jnp.ones((50, 1, 1, 1)), 0.5, 5) == 0)) == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("module", [networks.Conv4(2, 4, norm_groups=2), networks.ResNet12(**TINY)])
def test_group_and_layer_norm_see_one_example_alone(module, norm):
  network = networks.from_linen(module.clone(norm=norm))
  params, _ = toy.init(network, X)
  apply = toy.jit(network.apply)
  whole = apply(params, (), X)
  np.testing.assert_allclose(apply(params, (), X[:1])[0], whole[0], rtol=1e-4, atol=1e-5)
  assert jax.eval_shape(network.apply_with_stats, params, (), None, X)[1] == {}


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    ({"norm": "bach"}, "norm must be one of 'batch', 'group', 'layer'; got 'bach'"),
    ({"drop_rate": 1.0}, "drop_rate must be at least 0 and below 1, got 1.0"),
  ],
)
def test_bad_arguments(bad, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(networks.ResNet12(**TINY, **bad).init, KEY, X)
