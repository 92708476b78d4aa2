from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import toy
from warpjax import networks


class Warped(nn.Module):
  @nn.compact
  def __call__(self, x, train=True):
    x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Dense(4, name="dense")(x))
    x = nn.Dense(4, name="warp_0")(nn.relu(x))
    return nn.Dense(2, name="head")(x)


class WarpedNnx(nnx.Module):
  def __init__(self, rngs):
    self.dense, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
    self.mix = nnx.Linear(4, 4, rngs=rngs)
    self.mix.kernel, self.mix.bias = (networks.WarpParam(leaf[...]) for leaf in (self.mix.kernel, self.mix.bias))
    self.heads = nnx.List([nnx.Linear(4, 2, rngs=rngs)])

  def __call__(self, x):
    return self.heads[0](self.mix(nnx.relu(self.norm(self.dense(x)))))


def plain(key, x):
  keys = jax.random.split(key)
  return {"w": jax.random.normal(keys[0], (3, 4))}, {"v": jax.random.normal(keys[1], (4, 2))}


NETWORKS = {
  "linen": networks.from_linen(Warped()),
  "nnx": networks.from_nnx(WarpedNnx),
  "plain": networks.Network(plain, lambda params, shared, x: jnp.tanh(x @ params["w"]) @ shared["v"]),
}


@pytest.fixture
def x():
  return jax.random.normal(jax.random.key(1), (5, 3))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_two_pytrees_and_a_pure_function(name, x):
  network = NETWORKS[name]
  params, shared = jax.jit(network.init)(jax.random.key(0), x)
  apply = toy.jit(network.apply)
  outputs = apply(params, shared, x)
  assert outputs.shape == (5, 2)
  np.testing.assert_array_equal(outputs, apply(params, shared, x))
  for side in (0, 1):
    moved = [params, shared]
    moved[side] = jax.tree.map(lambda leaf: leaf + 0.1, moved[side])
    assert np.abs(apply(*moved, x) - outputs).max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_both_sides_under_vmap_equal_a_loop(name, x):
  network = NETWORKS[name]
  params, shared = toy.init(network, x)
  gradient = toy.jit(jax.grad(lambda p, s, x: jnp.sum(network.apply(p, s, x) ** 2), argnums=(0, 1)))
  tasks = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.3 * leaf]), params)
  batched = jax.vmap(gradient, (0, None, None))(tasks, shared, x)
  for i in range(2):
    single = gradient(jax.tree.map(lambda leaf, i=i: leaf[i], tasks), shared, x)
    jax.tree.map(lambda b, s, i=i: np.testing.assert_allclose(b[i], s, rtol=1e-4, atol=1e-5), batched, single)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_over_reverse_works(name, x):
  network = NETWORKS[name]
  params, shared = toy.init(network, x)
  gradient = jax.grad(lambda p: jnp.sum(network.apply(p, shared, x) ** 2))
  product = toy.jit(lambda params: jax.jvp(gradient, (params,), (params,))[1])(params)
  assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(product)) > 0


def test_linen_modules_named_warp_are_shared(x):
  params, shared = toy.init(NETWORKS["linen"], x)
  assert set(params) == {"dense", "norm", "head"}
  assert set(shared) == {"warp_0"}


def test_nnx_variables_of_type_warp_param_are_shared(x):
  params, shared = toy.init(NETWORKS["nnx"], x)
  assert set(params) == {"dense", "norm", "heads"}
  assert {name: set(leaves) for name, leaves in shared.items()} == {"mix": {"kernel", "bias"}}
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((params, shared)))


@pytest.mark.parametrize("name", ["linen", "nnx"])
def test_batch_norm_uses_the_statistics_of_its_batch(name, x):
  network = NETWORKS[name]
  params, shared = toy.init(network, x)
  apply = toy.jit(lambda x: network.apply(params, shared, x))
  np.testing.assert_allclose(apply(x), apply(3 * x), atol=1e-3)
  assert np.abs(apply(x)[:2] - apply(x[:2])).max() > 1e-2


def test_a_predicate_replaces_the_names_and_may_leave_no_side_empty(x):
  network = networks.from_linen(Warped(), is_shared=lambda path: path[0] != "head")
  params, shared = toy.init(network, x)
  assert set(params) == {"head"}
  assert set(shared) == {"dense", "norm", "warp_0"}
  with pytest.raises(ValueError, match="leaves nothing shared: got 8 .* and 0 shared"):
    networks.from_linen(Warped(), is_shared=lambda path: path[0] == "Head").init(jax.random.key(0), x)
  with pytest.raises(ValueError, match="leaves nothing that adapts"):
    networks.from_linen(Warped(), is_shared=lambda path: True).init(jax.random.key(0), x)


def test_what_is_expected_of_the_split_is_checked(x):
  with pytest.raises(ValueError, match="leaves nothing shared"):
    networks.from_linen(nn.Dense(2), expect_shared=True).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match="expect_shared=False"):
    networks.from_linen(Warped(), expect_shared=False).init(jax.random.key(0), x)
  with pytest.raises(ValueError, match="leaves nothing shared"):
    networks.from_nnx(lambda rngs: nnx.Linear(3, 2, rngs=rngs), expect_shared=True).init(jax.random.key(0), x)
  nothing_shared = networks.from_linen(Warped(), is_shared=lambda path: False, expect_shared=False)
  assert jax.eval_shape(nothing_shared.init, jax.random.key(0), x)[1] == ()


def test_call_arguments_reach_the_module(x):
  class Scaled(nn.Module):
    @nn.compact
    def __call__(self, x, scale=1.0):
      return scale * nn.Dense(2)(x)

  once, thrice = networks.from_linen(Scaled()), networks.from_linen(Scaled(), scale=3.0)
  params, shared = toy.init(once, x)
  first, second = (toy.jit(network.apply)(params, shared, x) for network in (once, thrice))
  np.testing.assert_allclose(3 * first, second, rtol=1e-6)


def test_other_state_is_refused_by_name(x):
  class Counter(nn.Module):
    @nn.compact
    def __call__(self, x):
      self.variable("counts", "n", lambda: jnp.zeros(()))
      return nn.Dense(2)(x)

  with pytest.raises(ValueError, match="collections \\['counts'\\]"):
    networks.from_linen(Counter()).init(jax.random.key(0), x)

  class Counts(nnx.Variable):
    pass

  class CounterNnx(nnx.Linear):
    def __init__(self, rngs):
      super().__init__(3, 2, rngs=rngs)
      self.n = Counts(jnp.zeros(()))

  with pytest.raises(ValueError, match="variables of types \\['Counts'\\]"):
    networks.from_nnx(CounterNnx).init(jax.random.key(0), x)


def test_wrong_modules_are_refused():
  with pytest.raises(ValueError, match="module must be an instance"):
    networks.from_linen(nn.Dense)
  with pytest.raises(ValueError, match="factory must be a function"):
    networks.from_nnx(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
