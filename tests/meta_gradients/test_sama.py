"""SAMA: a central difference, held to the derivative that it stands for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import along_trajectory, implicit, sama
from warpjax.tasks import quadratic
from warpjax.types import MetaParams

pytestmark = pytest.mark.usefixtures("x64")

RATE, PROX = 0.1, 0.7


def sama_of(inner, meta_params, radius=1e-3):
  return toy.run(along_trajectory(inner, sama(radius)), meta_params, toy.task())[1]


def test_with_sgd_it_is_the_implicit_gradient_whose_inverse_is_the_learning_rate():
  """`H + prox I` taken as `I / rate` is the solve `identity(prox * rate)`."""
  inner, meta_params = toy.loop(rules.sgd(RATE), prox=PROX), toy.meta_params()
  identity = implicit(linear_solve.identity(PROX * RATE))
  _, expected = toy.run(along_trajectory(inner, identity), meta_params, toy.task())
  toy.assert_close(sama_of(inner, meta_params), expected, rtol=1e-6, atol=1e-9)


def test_the_error_is_of_second_order_in_the_radius():
  inner, meta_params = toy.loop(rules.sgd(RATE), prox=PROX), toy.meta_params()
  exact = toy.run(along_trajectory(inner, implicit(linear_solve.identity(PROX * RATE))), meta_params, toy.task())[1]
  off = lambda radius: float(optax.tree.norm(optax.tree.sub(sama_of(inner, meta_params, radius), exact)))
  assert 3.5 < off(0.4) / off(0.2) < 4.5


def test_with_adam_it_is_the_dense_formula():
  """`direct + M^T D grad L_query`, M and D by dense Jacobians, D of the update at the last step's gradient."""
  rule = rules.adam(0.05)
  inner, meta_params, task = toy.loop(rule, prox=PROX), toy.meta_params(rule), toy.task()
  trajectory = toy.jit(lambda: wj.adapt(inner, meta_params, task, toy.key(), record=True))()
  last, final = jax.tree.map(lambda leaf: leaf[-1], trajectory.steps), trajectory.final.params
  flat, unravel = jax.flatten_util.ravel_pytree(final)
  gradient, unravel_gradient = jax.flatten_util.ravel_pytree(last.grads)
  shared, unravel_shared = jax.flatten_util.ravel_pytree(meta_params.shared)

  @toy.jit
  def dense():
    def update(g):
      made, _ = rule.transform(()).update(unravel_gradient(g), last.state.opt_state, last.state.params)
      return jax.flatten_util.ravel_pytree(made)[0]

    query = lambda p, s: toy.loss_fn(unravel(p), unravel_shared(s), task.query)[0]
    inner_loss = lambda p, s: toy.loss_fn(unravel(p), unravel_shared(s), task.support)[0]
    outer, direct = jax.grad(query, (0, 1))(flat, shared)
    mixed = jax.jacobian(jax.grad(inner_loss), 1)(flat, shared)
    return direct + mixed.T @ jax.jacobian(update)(gradient).T @ outer

  found = jax.flatten_util.ravel_pytree(sama_of(inner, meta_params).shared)[0]
  np.testing.assert_allclose(found, dense(), rtol=1e-6, atol=1e-7)


def test_exact_on_a_quadratic_at_any_radius():
  """There a central difference has no error: `rate prox grad L_query` at the end point."""
  task, initial = quadratic.sampler(5)(toy.key()), toy.draw(0, 5)
  inner = wj.InnerLoop(quadratic.loss, rules.sgd(RATE), 4, prox=PROX)
  _, grads = toy.run(along_trajectory(inner, sama(10.0)), MetaParams(initial), task)
  end = quadratic.descent_point(task, initial, learning_rate=RATE, num_steps=4, prox=PROX)
  expected = RATE * PROX * jax.grad(lambda point: quadratic.loss(point, (), task.query)[0])(end)
  np.testing.assert_allclose(grads.initial, expected, rtol=1e-8)


def test_a_query_gradient_of_zero_gives_zero():
  inner = wj.InnerLoop(lambda p, s, batch: jnp.sum(p * s * batch), rules.sgd(RATE), 2)
  meta_params, task = MetaParams(jnp.ones(2), jnp.ones(2)), wj.Task(jnp.ones(2), jnp.zeros(2))
  toy.assert_zero(toy.run(along_trajectory(inner, sama()), meta_params, task)[1])


def test_memory_does_not_grow_with_the_steps():
  def temporaries(steps):
    call = along_trajectory(toy.loop(rules.adam(0.05), steps), sama())
    lowered = toy.jit(call).lower(toy.meta_params(), toy.task(), toy.key())
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporaries(4) == temporaries(64)


def test_bad_input():
  for radius in (0, -1.0, float("nan"), "1"):
    with pytest.raises(ValueError, match=f"radius must be finite and above 0; got {radius!r}"):
      sama(radius)
  with pytest.raises(ValueError, match=r"sama\(\) needs InnerLoop.prox > 0, or a shared block"):
    along_trajectory(toy.loop(), sama())(toy.meta_params()._replace(shared=()), toy.task(), toy.key())
  with pytest.raises(ValueError, match="sama"):
    along_trajectory(toy.loop(rules.newton_cg(2)), sama())
