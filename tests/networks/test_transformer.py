"""The transformer: causal, over a window, at positions that count relatively; some MLPs adapt, all else is shared."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks
from warpjax.networks import transformer

SMALL = {"num_outputs": 7, "num_blocks": 2, "width": 8, "num_heads": 2, "hidden": 6, "window": 3}
X = jnp.asarray(np.random.default_rng(0).integers(0, 7, 12), jnp.int32)


def made(**changes):
  module = networks.Transformer(**{**SMALL, **changes})
  return networks.from_linen(module, is_shared=networks.last_mlps(module))


def test_an_output_depends_on_the_tokens_of_its_windows_alone(x64):
  """Two blocks of a window of 3 see the token itself and the four before it."""
  network = made()
  params, shared = toy.init(network, X)
  apply = toy.jit(lambda x: network.apply(params, shared, x))
  plain, seen = apply(X), []
  for index in range(len(X)):
    changed = apply(X.at[index].add(1) % 7)
    seen.append(np.flatnonzero(np.abs(changed - plain).max(axis=-1) > 1e-12).tolist())
  assert seen == [list(range(index, min(index + 5, len(X)))) for index in range(len(X))]


def test_a_product_of_rotated_features_depends_on_the_distance_alone(x64):
  q, k = (toy.draw(seed, 1, 1, 8) for seed in (0, 1))
  q, k = (transformer.rotated(jnp.broadcast_to(leaf, (6, 1, 8)))[:, 0] for leaf in (q, k))
  products = q @ k.T
  for behind in range(6):
    np.testing.assert_allclose(np.diagonal(products, -behind), products[behind, 0], rtol=1e-12)
  assert np.ptp(products[:, 0]) > 0.1


def test_a_batch_of_texts_is_each_text(x64):
  network = made()
  params, shared = toy.init(network, X)
  apply = toy.jit(network.apply)
  both = apply(params, shared, jnp.stack([X, X[::-1]]))
  np.testing.assert_allclose(both[1], apply(params, shared, X[::-1]), rtol=1e-12)


@pytest.mark.parametrize(
  ("changes", "adapting"), [({}, (1,)), ({"num_adapting": 2}, (0, 1)), ({"num_blocks": 8}, (6, 7))], ids=str
)
def test_the_mlps_of_the_last_quarter_adapt(changes, adapting):
  warp = networks.WarpSpec("linear", identity_init=True)
  params, shared = jax.eval_shape(made(warp=warp, **changes).init, jax.random.key(0), X)
  assert {name: set(block) for name, block in params.items()} == {f"block_{i}": {"mlp"} for i in adapting}
  assert {"embed", "head", "norm", "block_0"} <= set(shared)
  warped = [name for name, block in shared.items() if "warp_in" in block and "warp_out" in block]
  assert sorted(warped) == [f"block_{i}" for i in adapting]


def test_neither_identity_warps_nor_recomputed_blocks_change_the_derivatives(x64):
  bare = made()
  params, shared = toy.init(bare, X)

  def of(network, shared):
    loss = lambda params, shared: jnp.sum(network.apply(params, shared, X) ** 2)
    return toy.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, shared)

  value, grads = of(bare, shared)
  toy.assert_close(of(made(remat=True), shared), (value, grads))
  warped = made(warp=networks.WarpSpec("linear", identity_init=True))
  found, (own, others) = of(warped, toy.init(warped, X)[1])
  toy.assert_close((found, own), (value, grads[0]))
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(others["block_1"]["warp_out"])) > 1e-3


@pytest.mark.slow
def test_a_loop_over_blocks_is_the_listed_blocks(x64):
  settings = {"num_blocks": 3, "num_adapting": 2, "warp": networks.WarpSpec("linear")}
  listed, scanned = made(**settings), made(scan=True, remat=True, **settings)
  params, shared = toy.init(listed, X)
  stacked = lambda tree, indices: jax.tree.map(
    lambda *leaves: jnp.stack(leaves), *(tree[f"block_{i}"] for i in indices)
  )

  def moved(trees):
    own, others = trees
    rest = {name: leaf for name, leaf in others.items() if not name.startswith("block_")}
    blocks = {"fixed": stacked(others, (0,)), "adapting": stacked(others, (1, 2))}
    return {"adapting": stacked(own, (1, 2))}, {**rest, **blocks}

  def of(network, point):
    loss = lambda params, shared: jnp.sum(network.apply(params, shared, X) ** 2)
    return toy.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*point)

  at = moved((params, shared))
  jax.tree.map(np.testing.assert_array_equal, *(jax.tree.map(jnp.shape, tree) for tree in (toy.init(scanned, X), at)))
  value, grads = of(listed, (params, shared))
  toy.assert_close(of(scanned, at), (value, moved(grads)))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"width": 6}, r"width must be a multiple of 2 \* num_heads, 4; got 6"),
    ({"num_adapting": 3}, "num_adapting must be 0 to num_blocks, 2; got 3"),
    ({"scan": True, "warp": networks.WarpSpec("linear", batch_norm=True)}, "warp.batch_norm must be False with scan"),
    ({"warp": networks.WarpSpec("conv3x3")}, "warp.kind must be one of .*'linear'.*; got 'conv3x3'"),
  ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(networks.Transformer(**{**SMALL, **changes}).init, jax.random.key(0), X)
