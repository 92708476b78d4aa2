"""Meta-SGD: its parameters, and their meta-gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled

pytestmark = pytest.mark.usefixtures("strict")


def test_a_constant_alpha_is_sgd():
  meta_params, task = toy.meta_params(rules.meta_sgd(0.3)), toy.task()
  value, grads = toy.run(unrolled(toy.loop(rules.meta_sgd(0.3))), meta_params, task)
  plain_value, plain = toy.run(unrolled(toy.loop(rules.sgd(0.3))), meta_params._replace(rule=()), task)
  toy.assert_close((value, grads.initial, grads.shared), (plain_value, plain.initial, plain.shared))


def test_alpha_has_the_tree_of_the_parameters():
  params = {"a": jnp.zeros((2, 3), jnp.float32), "b": (jnp.zeros(4), jnp.zeros((), jnp.bfloat16))}
  for init in (0.1, (0.01, 0.2)):
    alpha = jax.eval_shape(rules.meta_sgd(init).init, toy.key(), params)
    of = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert of(alpha) == of(params)


def test_alpha_is_drawn_between_its_bounds():
  params = {"a": jnp.zeros(500), "b": jnp.zeros(500)}
  draw = toy.jit(rules.meta_sgd((0.01, 0.2)).init)
  alpha = draw(toy.key(), params)
  for leaf in alpha.values():
    assert leaf.min() >= 0.01 and leaf.max() < 0.2
    np.testing.assert_allclose(leaf.mean(), 0.105, atol=0.01)
  assert not np.any(alpha["a"] == alpha["b"])
  assert np.all(alpha["a"] != draw(toy.key(8), params)["a"])


def test_after_one_step_alphas_gradient_is_minus_the_product_of_two_gradients():
  rule, task = rules.meta_sgd((-0.2, 0.2)), toy.task()
  meta_params = toy.meta_params(rule)
  grads = toy.run(unrolled(toy.loop(rule, 1)), meta_params, task)[1].rule
  gradient = lambda params, batch: toy.jit(jax.grad(toy.loss_fn, has_aux=True))(params, meta_params.shared, batch)[0]
  inner = gradient(meta_params.initial, task.support)
  moved = jax.tree.map(lambda p, a, g: p - a * g, meta_params.initial, meta_params.rule, inner)
  toy.assert_close(grads, jax.tree.map(lambda g, q: -g * q, inner, gradient(moved, task.query)))


@pytest.mark.parametrize("derivative", ["mixed", "reverse"])
def test_alphas_meta_gradient_by_finite_differences(derivative):
  rule, task = rules.meta_sgd((-0.1, 0.3)), toy.task()
  meta_params = toy.meta_params(rule)
  estimate = toy.jit(unrolled(toy.loop(rule), derivative))
  value = lambda alpha: estimate(meta_params._replace(rule=alpha), task, toy.key())[0][0]
  toy.assert_slopes(value, meta_params.rule, estimate(meta_params, task, toy.key())[1].rule)


@pytest.mark.parametrize("init", [(0.2, 0.1), "0.1", (0.1, 0.2, 0.3), (0.1,), None, float("nan"), (0.1, float("inf"))])
def test_bad_bounds(init):
  with pytest.raises(ValueError, match="learning_rate must be a number or increasing bounds"):
    rules.meta_sgd(init)
