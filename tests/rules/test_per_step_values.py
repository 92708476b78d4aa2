"""Values by inner step (MAML++'s scales and offsets): which is in force when, and their meta-gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import networks, rules
from warpjax.meta_gradients import unrolled
from warpjax.runner.components import rules as named_rules

pytestmark = pytest.mark.usefixtures("strict")
NUM_STEPS, RATE = 3, 0.1
IS_NORM, OTHERS = {"b": True, "w": False}, {"b": False, "w": True}


def rule(num_steps=NUM_STEPS):
  return rules.chain(rules.masked(rules.sgd(RATE), OTHERS), rules.masked(rules.per_step_values(num_steps), IS_NORM))


def moved(meta_params):
  """With values that differ from step to step."""
  return meta_params._replace(rule=jax.tree.map(lambda v: v + toy.draw(9, *v.shape), meta_params.rule))


def values_of(meta_params):
  """`v_0, ..., v_{K-1}`, `[K, 3]`."""
  (later,) = jax.tree.leaves(meta_params.rule)
  return jnp.concatenate([meta_params.initial["b"][None], later])


def by_hand(w, values, shared, task):
  """The query loss of a Python loop with the released code's indices: step k and its losses are under v_k."""
  for k in range(NUM_STEPS):
    b = values[k]
    w = w - RATE * jax.grad(lambda w, b=b: toy.loss_fn({"b": b, "w": w}, shared, task.support)[0])(w)
  return toy.loss_fn({"b": b, "w": w}, shared, task.query)[0]


def test_each_point_has_its_value_and_later_ones_the_last():
  meta_params = moved(toy.meta_params(rule()))
  found = toy.jit(lambda: wj.adapt(toy.loop(rule(), 5), meta_params, toy.task(), toy.key(), record=True))()
  points = jnp.concatenate([found.steps.state.params["b"], found.final.params["b"][None]])
  values = values_of(meta_params)
  np.testing.assert_allclose(points, values[jnp.array([0, 1, 2, 2, 2, 2])], rtol=1e-12)
  assert np.all(np.diff(found.steps.state.params["w"], axis=0) != 0)


def test_value_and_meta_gradient_are_those_of_a_loop_by_hand():
  meta_params, task = moved(toy.meta_params(rule())), toy.task()
  (value, _), grads = toy.run(unrolled(toy.loop(rule())), meta_params, task)
  args = (meta_params.initial["w"], values_of(meta_params), meta_params.shared)
  expected, by = toy.jit(jax.value_and_grad(by_hand, argnums=(0, 1, 2)))(*args, task)
  found = (grads.initial["w"], jnp.concatenate([grads.initial["b"][None], *jax.tree.leaves(grads.rule)]), grads.shared)
  toy.assert_close((value, *found), (expected, *by), rtol=1e-9)
  assert np.all(np.any(found[1] != 0, axis=1))  # every value has a gradient


@pytest.mark.parametrize("derivative", ["mixed", "reverse"])
def test_meta_gradient_by_finite_differences(derivative):
  meta_params, task = moved(toy.meta_params(rule())), toy.task()
  estimate = toy.jit(unrolled(toy.loop(rule()), derivative))
  value = lambda point: estimate(point, task, toy.key())[0][0]
  toy.assert_slopes(value, meta_params, estimate(meta_params, task, toy.key())[1])


def test_equal_values_are_frozen_parameters_whose_derivative_is_the_sum():
  frozen = rules.chain(rules.sgd(RATE), rules.freeze(IS_NORM))
  value, grads = toy.run(unrolled(toy.loop(rule())), toy.meta_params(rule()), toy.task())
  other_value, other = toy.run(unrolled(toy.loop(frozen)), toy.meta_params(frozen), toy.task())
  (later,) = jax.tree.leaves(grads.rule)
  toy.assert_close(
    (value, grads.initial["w"], grads.shared, grads.initial["b"] + jnp.sum(later, 0)),
    (other_value, other.initial["w"], other.shared, other.initial["b"]),
  )


@pytest.mark.parametrize("num_steps", [1, 0, True, 2.0])
def test_bad_number_of_steps(num_steps):
  with pytest.raises(ValueError, match=f"num_steps must be an integer of at least 2.*got {num_steps!r}"):
    rules.per_step_values(num_steps)


def test_parameters_must_be_given():
  with pytest.raises(ValueError, match="needs the parameters that it replaces; got None"):
    rules.per_step_values(2).transform(jnp.ones(1)).update(jnp.ones(()), jnp.zeros((), jnp.int32))


def test_the_setting_takes_the_norms_of_a_network_and_no_step_sizes_for_them():
  network = networks.from_linen(networks.mamlpp_mini_imagenet(2, width=2))
  params, _ = jax.eval_shape(network.init, toy.key(), jnp.zeros((2, 16, 16, 3)))
  sizes, values = jax.eval_shape(named_rules.per_step_sgd(0.1, 5, per_step_norm=True).init, toy.key(), params)
  shapes = lambda tree: {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
  assert shapes(values) == {f"['norm_{i}']['{name}']": (4, 2) for i in range(4) for name in ("bias", "scale")}
  assert shapes(sizes) == {name: (5,) for name in shapes(params) if "norm" not in name}


def test_the_setting_is_refused_where_no_norm_adapts():
  with pytest.raises(ValueError, match=r"config\.inner\.per_step_norm must be False where no normalisation"):
    named_rules.per_step_sgd(0.1, 5, per_step_norm=True).init(toy.key(), toy.initial())
