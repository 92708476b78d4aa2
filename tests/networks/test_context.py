"""CAVIA: a context of all parameters is MAML, FiLM is FiLM, and the meta-gradient is that of finite differences."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import losses, networks, rules
from warpjax.meta_gradients import own_parameters, unrolled
from warpjax.networks import Modulation, film, with_context
from warpjax.runner.components import meta_gradients as settings

pytestmark = pytest.mark.usefixtures("strict")

# A context for every parameter, which is added to it.
EVERY = Modulation(
  lambda key, params: (jax.tree.map(jnp.zeros_like, params), ()),
  lambda context, weights, params: jax.tree.map(jnp.add, params, context),
)


def mlp(**fields):
  return networks.from_linen(networks.MLP((3,), num_outputs=2, activation="tanh", **fields))


def loop(network, num_steps=3):
  return wj.InnerLoop(losses.regression(network.apply), rules.sgd(0.3), num_steps)


def start(network):
  return wj.MetaParams(*toy.init(network, toy.task().support[0]))


def test_a_context_of_all_parameters_is_maml():
  """Descent of the context from zero is descent of the parameters, so that the shared ones learn as MAML's do."""
  plain, contextual = mlp(), with_context(mlp(), EVERY)
  meta_params = start(contextual)
  (value, aux), grads = toy.run(unrolled(loop(contextual)), meta_params, toy.task())
  expected = toy.run(unrolled(loop(plain)), wj.MetaParams(meta_params.shared["params"]), toy.task())
  toy.assert_close(((value, aux), grads.shared["params"]), (expected[0], expected[1].initial))


def test_context_parameters_are_further_inputs_of_a_dense_layer():
  """As in the released code, which concatenates them to x."""
  network, x = with_context(mlp(), film("dense_0", 4)), toy.task().support[0]
  params, shared = toy.init(network, x)
  context, own = toy.draw(5, 4), shared["params"]
  kernel = np.concatenate([own["dense_0"]["kernel"], shared["weights"]["shift"]])
  inputs = np.concatenate([x, np.broadcast_to(context, (len(x), 4))], axis=1)
  hidden = np.tanh(inputs @ kernel + np.asarray(own["dense_0"]["bias"]))
  expected = hidden @ np.asarray(own["head"]["kernel"]) + np.asarray(own["head"]["bias"])
  np.testing.assert_allclose(network.apply({"context": context}, shared, x), expected, rtol=1e-12)


def test_film_of_a_batch_norm_scales_and_shifts_its_outputs():
  module = networks.Conv4(2, 3, num_blocks=2, norm_scale=True)
  network, x = with_context(networks.from_linen(module), film("norm_0", 4)), toy.draw(6, 5, 6, 6, 1)
  params, shared = toy.init(network, x)
  context, weights = toy.draw(7, 4), shared["weights"]
  own = jax.tree.map(lambda leaf: leaf + toy.draw(8, *leaf.shape), shared["params"])

  def modulate(next_fun, args, kwargs, called):
    outputs = next_fun(*args, **kwargs)
    if called.module.name != "norm_0" or called.method_name != "__call__":
      return outputs
    return (1 + context @ weights["scale"])[None, None, None] * outputs + (context @ weights["shift"])[None, None, None]

  @toy.jit
  def by_hand(x):
    with nn.intercept_methods(modulate):
      return networks.from_linen(module).apply(own, (), x)

  found = toy.jit(network.apply)({"context": context}, {**shared, "params": own}, x)
  np.testing.assert_allclose(found, by_hand(x), rtol=1e-9)
  assert network.apply_with_stats is not None
  outputs, stats = toy.jit(network.apply_with_stats)({"context": context}, {**shared, "params": own}, None, x)
  again, _ = toy.jit(network.apply_with_stats)({"context": context}, {**shared, "params": own}, stats, x)
  np.testing.assert_allclose((outputs, again), (found, found), rtol=1e-9)


def test_meta_gradient_by_finite_differences():
  """Eager, compiled and under vmap; the context itself starts at zero and learns nothing."""
  network = with_context(mlp(), film("dense_0", 2))
  meta_params, task = start(network), toy.task()
  estimate = own_parameters(unrolled(loop(network)), settings.zero_context)
  compiled = toy.jit(estimate)
  result = compiled(meta_params, task, toy.key())
  toy.assert_zero(result[1].initial)
  toy.assert_slopes(lambda point: compiled(point, task, toy.key())[0][0], meta_params, result[1])
  toy.assert_close(result, estimate(meta_params, task, toy.key()), rtol=1e-9)
  tasks, keys = toy.tasks(2), jax.random.split(toy.key(), 2)
  mapped = toy.jit(jax.vmap(estimate, in_axes=(None, 0, 0)))(meta_params, tasks, keys)
  for i in range(2):
    one = jax.tree.map(lambda leaf, i=i: leaf[i], (mapped, tasks, keys))
    toy.assert_close(one[0], compiled(meta_params, *one[1:]), rtol=1e-9)
  assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(result[1].shared))


def test_tasks_start_at_the_zero_context_whatever_was_learned():
  network = with_context(mlp(), film("dense_0", 2))
  meta_params, task = start(network), toy.task()
  moved = meta_params._replace(initial={"context": jnp.ones(2)})
  estimate = toy.jit(own_parameters(unrolled(loop(network)), settings.zero_context))
  toy.assert_close(estimate(moved, task, toy.key()), estimate(meta_params, task, toy.key()))


@pytest.mark.parametrize(("make", "width"), [(networks.cavia_sinusoid, 1), (networks.cavia_omniglot, 28)])
def test_a_context_of_zero_changes_nothing(make, width):
  network = make(3) if width == 1 else make(3, 4, 5)
  x = toy.draw(1, 6, *([1] if width == 1 else [28, 28, 1]))
  params, shared = toy.init(network, x)
  assert not np.any(params["context"]) and shared["shared"] == ()
  moved = {"context": params["context"] + 0.5}
  same, other = (toy.jit(network.apply)(each, shared, x) for each in (params, moved))
  still = {**shared, "weights": jax.tree.map(jnp.zeros_like, shared["weights"])}
  np.testing.assert_allclose(toy.jit(network.apply)(moved, still, x), same, rtol=1e-12)
  assert np.any(other != same)


def test_bad_input():
  with pytest.raises(ValueError, match="network must be a Network; got MLP"):
    with_context(networks.MLP(), EVERY)
  with pytest.raises(ValueError, match="modulation must be a Modulation; got int"):
    with_context(mlp(), 5)
  with pytest.raises(ValueError, match="size must be an integer of at least 1; got 0"):
    film("dense_0", 0)
  with pytest.raises(ValueError, match="layer must be a module with a bias, one of dense_0, head; got 'norm_1'"):
    toy.init(with_context(mlp(), film("norm_1", 2)), toy.task().support[0])
  with pytest.raises(ValueError, match=r"redrawn needs a context that adapts; what adapts is b, w\."):
    settings.zero_context(toy.key(), toy.initial())
