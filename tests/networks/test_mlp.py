from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.tanh])
def test_it_is_dense_layers_with_activations_and_a_linear_head(activation):
  network = networks.from_linen(networks.MLP(features=(7, 5), num_outputs=2, activation=activation))
  x = jax.random.normal(jax.random.key(1), (4, 3))
  params, shared = toy.init(network, x)
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)
  assert shared == ()
  h = x
  for name in ("dense_0", "dense_1"):
    h = activation(h @ params[name]["kernel"] + params[name]["bias"])
  expected = h @ params["head"]["kernel"] + params["head"]["bias"]
  np.testing.assert_allclose(network.apply(params, shared, x), expected, rtol=1e-5)


def test_a_single_example_needs_no_batch_axis():
  network = networks.from_linen(networks.MLP(features=(7,), num_outputs=2))
  params, _ = toy.init(network, jnp.ones(3))
  assert jax.eval_shape(network.apply, params, (), jnp.ones(3)).shape == (2,)


def test_no_dtype_is_hard_coded(x64):
  network = networks.from_linen(networks.MLP(warp=networks.WarpSpec("linear")))
  params, shared = toy.init(network, jnp.ones((4, 1)))
  outputs = jax.eval_shape(network.apply, params, shared, jnp.ones((4, 1)))
  assert {leaf.dtype for leaf in jax.tree.leaves((params, shared, outputs))} == {jnp.dtype("float64")}
