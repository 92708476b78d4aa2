"""The warp objective against finite differences, the unrolled gradient, and what it must not depend on."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import meta_gradients, rules
from warpjax.meta_gradients.warp import point_gradient
from warpjax.problem import Problem

WIDTH = 4


def warped_mlp(params, shared, x):
  hidden = jnp.tanh(x @ params["w1"] + params["b1"])
  hidden = hidden @ shared["warp"] + shared["bias"]
  return hidden @ params["w2"]


def plain_mlp(params, shared, x):
  del shared
  return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]


def mse(apply):
  return lambda params, shared, batch: (jnp.mean((apply(params, shared, batch[0]) - batch[1]) ** 2), {})


def setting(identity=False, width=WIDTH):
  draw = lambda seed, *shape: 2.0 * toy.draw(seed, *shape)
  params = {"w1": draw(0, 2, width), "b1": draw(1, width), "w2": draw(2, width, 1)}
  warp = jnp.eye(width, dtype=float) if identity else draw(3, width, width)
  shared = {"warp": warp, "bias": jnp.zeros(width, float) if identity else draw(4, width)}
  x = np.asarray(draw(5, 24, 2))
  y = np.sin(x.sum(-1, keepdims=True)) + np.asarray(draw(6, 1))
  task = wj.Task((x[:12], y[:12]), (x[12:], y[12:]))
  return wj.MetaParams(params, shared), jax.tree.map(jnp.asarray, task), toy.key(8)


def estimate(inner, *contributions):
  """What the contributions make of the setting in the precision of the moment."""
  return toy.jit(meta_gradients.along_trajectory(inner, *contributions))(*setting())


def loop(num_steps=5, **kwargs):
  return wj.InnerLoop(mse(warped_mlp), kwargs.pop("rule", rules.sgd(0.05)), num_steps, **kwargs)


def random_query(key, task, params, shared):
  """A query batch that depends on its key, so that points that share one are found out."""
  del params, shared
  return toy.some(key, task.query, 6)


def finite_difference(function, tree, step=1e-6):
  flat, unravel = jax.flatten_util.ravel_pytree(tree)
  values = jax.jit(jax.vmap(lambda point: function(unravel(point))))
  basis = step * jnp.eye(flat.size)
  return unravel((values(flat + basis) - values(flat - basis)) / (2 * step))


def assert_close(one, other, rtol=1e-6, atol=1e-9):
  chex.assert_trees_all_close(one, other, rtol=rtol, atol=atol)


def test_identity_warp_is_plain_sgd_exactly():
  meta_params, task, key = setting(identity=True)
  warped = wj.adapt(loop(20), meta_params, task, key).final.params
  plain = wj.adapt(wj.InnerLoop(mse(plain_mlp), rules.sgd(0.05), 20), meta_params, task, key).final.params
  chex.assert_trees_all_equal(warped, plain)
  assert not np.array_equal(plain["w1"], meta_params.initial["w1"])


@pytest.mark.parametrize(
  "rule", [*(pytest.param(rules.sgd(0.05, m), marks=pytest.mark.slow) for m in (None, 0.9)), rules.adam(0.05)]
)
def test_one_step_warp_gradient_is_the_unrolled_one(rule):
  with jax.enable_x64(True):
    meta_params, task, key = setting()
    inner = loop(1, rule=rule)
    _, warp = toy.jit(meta_gradients.along_trajectory(inner, meta_gradients.warp()))(meta_params, task, key)
    _, unrolled = jax.jit(meta_gradients.unrolled(inner, "reverse"))(meta_params, task, key)
    assert_close(warp.shared, unrolled.shared, rtol=1e-10)


def test_one_step_warp_gradient_is_the_unrolled_one_for_the_step_sizes():
  with jax.enable_x64(True):
    meta_params, task, key = setting()
    inner = loop(1, rule=rules.meta_sgd((0.01, 0.1)))
    meta_params = meta_params._replace(rule=inner.rule.init(key, meta_params.initial))
    _, warp = toy.jit(meta_gradients.along_trajectory(inner, meta_gradients.warp()))(meta_params, task, key)
    _, unrolled = jax.jit(meta_gradients.unrolled(inner, "reverse"))(meta_params, task, key)
    assert_close((warp.shared, warp.rule), (unrolled.shared, unrolled.rule), rtol=1e-10)


@pytest.mark.parametrize("objective", ["full", "first_order"])
def test_objectives_against_finite_differences_in_phi(objective):
  with jax.enable_x64(True):
    meta_params, task, key = setting()
    inner = loop(4, batch_fn=toy.pair, query_batch_fn=random_query)
    steps = toy.jit(lambda *args: wj.adapt(inner, *args, record=True).steps)(meta_params, task, key)

    def loss(shared):
      # Written out from Eqs. 11 and 12: points fixed, one step from each, and for Eq. 12 the bracket fixed too.
      total = 0.0
      moved = Problem(inner, meta_params._replace(shared=shared), task, key)
      for k in range(4):
        theta = jax.tree.map(lambda leaf: leaf[k], steps.state.params)  # noqa: B023
        batch = moved.batch(theta, k)
        through = shared if objective == "full" else meta_params.shared
        grads = jax.grad(lambda p: inner.loss_fn(p, through, batch)[0])(theta)  # noqa: B023
        after = jax.tree.map(lambda p, g: p - 0.05 * g, theta, grads)
        total += moved.query_loss(after, shared, k + 1)[0]
      return total / 4

    _, grads = estimate(inner, meta_gradients.warp(objective))
    assert_close(grads.shared, finite_difference(loss, meta_params.shared), rtol=1e-5, atol=1e-8)


def by_hand(problem, state, index, objective):
  """The objective at a point, differentiated in reverse mode through a step of its own."""
  meta_params = problem.meta_params

  def loss(shared, rule):
    moved = problem._replace(meta_params=meta_params._replace(shared=shared, rule=rule))
    after = (problem if objective == "first_order" else moved).step(state, index, "reverse").next.params
    return moved.query_loss(after, shared, index + 1)[0]

  return jax.grad(loss, argnums=(0, 1))(meta_params.shared, meta_params.rule)


REUSED = {
  "first_order": ("first_order", rules.meta_sgd(0.1), 0.0),
  "sgd": ("full", rules.sgd(0.05), 0.5),
  "meta_sgd_and_momentum": ("full", rules.chain(rules.meta_sgd((0.5, 1.0)), rules.sgd(0.05, momentum=0.9)), 0.0),
  "adam": ("full", rules.learned(rules.adam, learning_rate=0.05), 0.5),
}


@pytest.mark.parametrize(
  "name", ["first_order", "meta_sgd_and_momentum", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "adam"))]
)
def test_the_step_s_own_passes_give_the_gradient_of_a_step_computed_again(name):
  with jax.enable_x64(True):
    objective, rule, prox = REUSED[name]
    inner = loop(3, rule=rule, batch_fn=toy.pair, query_batch_fn=random_query, prox=prox)
    meta_params, task, key = setting()
    meta_params = meta_params._replace(rule=rule.init(key, meta_params.initial))
    along = meta_gradients.along_trajectory(inner, meta_gradients.warp(objective))

    def three(key):
      states = wj.adapt(inner, meta_params, task, key, record=True).steps.state
      problem = Problem(inner, meta_params, task, key)
      mean = lambda at: jax.tree.map(
        lambda leaf: leaf.mean(0), jax.vmap(lambda state, k: at(problem, state, k, objective))(states, jnp.arange(3))
      )
      return along(meta_params, task, key)[1][1:], mean(point_gradient), mean(by_hand)

    folded, alone, expected = toy.jit(jax.vmap(three))(jax.random.split(key, 2))
    toy.assert_close(folded, expected)
    toy.assert_close(alone, expected)


def test_objectives_differ():
  full, first = (
    estimate(loop(), meta_gradients.warp(objective))[1].shared["warp"] for objective in ("full", "first_order")
  )
  assert float(jnp.max(jnp.abs(full - first))) > 1e-3


@pytest.mark.parametrize("prox", [0.0, 0.5])
@pytest.mark.parametrize("objective", ["full", "first_order"])
def test_no_gradient_reaches_initial(objective, prox):
  (_, _), grads = estimate(loop(prox=prox), meta_gradients.warp(objective))
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads.initial))
  assert all(np.any(leaf) for leaf in jax.tree.leaves(grads.shared))


def test_sum_is_the_mean_times_the_points():
  mean, total = (estimate(loop(5), meta_gradients.warp(reduction=reduction))[1] for reduction in ("mean", "sum"))
  assert_close(total.shared, jax.tree.map(lambda leaf: 5 * leaf, mean.shared), rtol=1e-5)


def test_the_warp_contribution_leaves_the_trajectory_alone():
  (value, _), grads = estimate(loop(), meta_gradients.leap(), meta_gradients.warp())
  (other_value, _), other = estimate(loop(), meta_gradients.leap())
  assert float(value) == pytest.approx(float(other_value), rel=1e-6)
  assert_close(grads.initial, other.initial, rtol=1e-4, atol=1e-6)


def temporaries(num_steps):
  meta_params, task, key = setting(width=64)  # so that the index of each step, an integer, does not count
  inner = loop(num_steps, batch_fn=toy.pair, query_batch_fn=random_query)
  grad_fn = meta_gradients.along_trajectory(inner, meta_gradients.leap(), meta_gradients.warp())
  return jax.jit(grad_fn).lower(meta_params, task, key).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_steps():
  assert temporaries(400) <= 1.05 * temporaries(100)


def test_each_point_draws_its_own_query_batch():
  meta_params, task, key = setting()
  problem = Problem(loop(query_batch_fn=random_query), meta_params, task, key)
  at = toy.jit(lambda k: point_gradient(problem, problem.start(), k, "first_order")[0]["warp"])
  one, other = (at(k) for k in (0, 1))
  assert not np.allclose(one, other)


@pytest.mark.parametrize("kwargs, named", [({"objective": "second"}, "objective"), ({"reduction": "max"}, "reduction")])
def test_errors_name_the_argument(kwargs, named):
  with pytest.raises(ValueError, match=named):
    meta_gradients.warp(**kwargs)


@pytest.mark.parametrize(
  "objective, rule, allowed",
  [
    ("full", rules.sgd(0.5), "a shared or a rule"),
    ("first_order", rules.sgd(0.5), "a shared"),
    ("first_order", rules.meta_sgd(0.5), "a shared"),
  ],
)
def test_nothing_to_learn_is_refused(objective, rule, allowed):
  inner = wj.InnerLoop(lambda w, shared, batch: (0.5 * (w - batch) ** 2, {}), rule, 1)
  meta_grad = wj.meta_gradients.along_trajectory(inner, wj.meta_gradients.warp(objective))
  with pytest.raises(ValueError, match=f"{objective}.* needs {allowed} block to learn; got none"):
    rule_params = rule.init(jax.random.key(0), jnp.zeros(()))
    meta_grad(wj.MetaParams(jnp.zeros(()), (), rule_params), wj.Task(jnp.ones(()), jnp.ones(())), jax.random.key(0))
