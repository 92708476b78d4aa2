"""Explicitly preconditioned descent against other rules and written-out loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled

pytestmark = pytest.mark.usefixtures("strict")


def identity(rule_params, params, grads):
  return grads


def by_alpha(alpha, params, grads):
  return jax.tree.map(jnp.multiply, alpha, grads)


def test_the_identity_is_sgd():
  meta_params, task = toy.meta_params(), toy.task()
  rule = rules.preconditioned(identity, 0.3)
  assert rule.init(toy.key(), meta_params.initial) == ()
  toy.assert_close(*(toy.run(unrolled(toy.loop(r)), meta_params, task) for r in (rule, rules.sgd(0.3))))


def test_a_diagonal_is_meta_sgd():
  meta_sgd = rules.meta_sgd((0.01, 0.2))
  rule = rules.preconditioned(by_alpha, 0.5, init=meta_sgd.init)
  meta_params, task = toy.meta_params(rule), toy.task()
  value, grads = toy.run(unrolled(toy.loop(rule)), meta_params, task)
  halved = meta_params._replace(rule=optax.tree.scale(0.5, meta_params.rule))
  other_value, other = toy.run(unrolled(toy.loop(meta_sgd)), halved, task)
  toy.assert_close((value, grads), (other_value, other._replace(rule=optax.tree.scale(0.5, other.rule))))


def test_a_matrix_that_depends_on_the_parameters_chained_with_momentum():
  def matvec(scale, params, grads):
    return jax.tree.map(lambda p, g: scale * g / (1 + p**2), params, grads)

  momentum = rules.from_optax(optax.trace(0.9))
  rule = rules.chain(rules.preconditioned(matvec, 0.5, lambda key, params: jnp.array(0.6)), momentum)
  meta_params, task = toy.meta_params(rule), toy.task()
  assert meta_params.rule == (jnp.array(0.6), ())
  final = toy.jit(lambda m: wj.adapt(toy.loop(rule), m, task, toy.key()).final.params)(meta_params)

  params = meta_params.initial
  gradient = toy.jit(lambda p: jax.grad(toy.loss_fn, has_aux=True)(p, meta_params.shared, task.support)[0])
  buffer = jax.tree.map(jnp.zeros_like, params)
  for _ in range(3):
    grads = gradient(params)
    buffer = {name: 0.9 * buffer[name] - 0.5 * 0.6 * grads[name] / (1 + params[name] ** 2) for name in params}
    params = jax.tree.map(jnp.add, params, buffer)
  toy.assert_close(final, params)


def test_bad_input():
  with pytest.raises(ValueError, match=r"matvec must be a function \(rule_params, params, grads\) -> grads; got None"):
    rules.preconditioned(None)
  with pytest.raises(ValueError, match="learning_rate must be a positive number or an optax schedule; got 0"):
    rules.preconditioned(identity, 0)
  with pytest.raises(ValueError, match="learning_rate must be a positive number .a schedule may be chained"):
    rules.preconditioned(identity, lambda count: 0.1)
