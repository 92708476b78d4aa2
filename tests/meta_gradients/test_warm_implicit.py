"""The warm-started implicit gradient: that of a cold solve once it has converged, and its own iteration before."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import along_trajectory, implicit, warm_implicit
from warpjax.tasks import quadratic
from warpjax.types import MetaParams

pytestmark = pytest.mark.usefixtures("x64")

PROX, DIM = 0.5, 6


def calls(estimate, meta_params, task, count):
  """The results of some meta-steps at fixed meta-parameters, and the carry."""
  call, carry, results = toy.jit(estimate.grad), estimate.init(meta_params), []
  for _ in range(count):
    result, carry = call(meta_params, task, toy.key(), carry)
    results.append(result)
  return results, carry


def test_the_first_meta_step_is_that_of_a_cold_solve():
  inner = toy.loop(prox=PROX)
  (first, second), _ = calls(warm_implicit(inner, linear_solve.cg(2)), toy.meta_params(), toy.task(), 2)
  cold = toy.run(along_trajectory(inner, implicit(linear_solve.cg(2))), toy.meta_params(), toy.task())
  toy.assert_close(first, cold)
  assert second[0][1]["implicit/residual"] < 0.5 * first[0][1]["implicit/residual"]


def test_a_product_a_time_reaches_the_exact_gradient():
  inner, task = toy.loop(prox=PROX), toy.task()
  exact = toy.run(along_trajectory(inner, implicit(linear_solve.cg(30))), toy.meta_params(), task)
  results, _ = calls(warm_implicit(inner, linear_solve.identity(0.15)), toy.meta_params(), task, 400)
  assert np.abs(results[0][1].initial["w"] - exact[1].initial["w"]).max() > 1e-3
  toy.assert_close(results[-1][1], exact[1], rtol=1e-7, atol=1e-10)


def test_with_the_identity_it_is_gradient_descent_on_the_linear_system():
  """SOBA's step, `x <- x - rho (A x - b)`, on a quadratic whose A and b are known."""
  task, initial = quadratic.sampler(DIM)(toy.key()), toy.draw(0, DIM)
  inner = wj.InnerLoop(quadratic.loss, rules.sgd(0.3), 3, prox=PROX)
  results, carry = calls(warm_implicit(inner, linear_solve.identity(0.2)), MetaParams(initial), task, 4)
  (matrix, _), (query_matrix, query_target) = task
  end = quadratic.descent_point(task, initial, learning_rate=0.3, num_steps=3, prox=PROX)
  operator, b = jnp.eye(DIM) + matrix.T @ matrix / PROX, query_matrix.T @ (query_matrix @ end - query_target)
  x = jnp.zeros(DIM)
  for (_, aux), grads in results:
    np.testing.assert_allclose(aux["implicit/residual"], jnp.linalg.norm(b - operator @ x) / jnp.linalg.norm(b))
    x = x - 0.2 * (operator @ x - b)
    np.testing.assert_allclose(grads.initial, x, rtol=1e-9)
  np.testing.assert_allclose(carry.solution, x, rtol=1e-9)


def test_carried_parameters_go_on_where_the_last_meta_step_ended():
  rule = rules.sgd(0.3, 0.5)
  inner, task = toy.loop(rule, 2, prox=PROX), toy.task()
  results, carry = calls(warm_implicit(inner, linear_solve.cg(3), carry_params=True), toy.meta_params(), task, 3)
  long = toy.jit(lambda: wj.adapt(inner, toy.meta_params(), task, toy.key(), num_steps=6))().final
  toy.assert_close(carry.state, long)
  value = toy.loss_fn(long.params, toy.meta_params().shared, task.query)[0]
  np.testing.assert_allclose(results[-1][0][0], value, rtol=1e-10)
  assert calls(warm_implicit(inner, linear_solve.cg(3)), toy.meta_params(), task, 1)[1].state is None


def test_it_follows_meta_parameters_that_move():
  """Few products a meta-step are enough where the system changes slowly; cold, the same number is not."""
  inner, task = toy.loop(rules.sgd(0.3), 40, prox=0.05), toy.task()
  warm, point = warm_implicit(inner, linear_solve.cg(1)), toy.meta_params()
  one = {
    name: toy.jit(along_trajectory(inner, implicit(linear_solve.cg(n)))) for name, n in (("exact", 30), ("cold", 2))
  }
  carry, call = warm.init(point), toy.jit(warm.grad)
  for _ in range(15):
    (_, grads), carry = call(point, task, toy.key(), carry)
    exact, cold = (one[name](point, task, toy.key())[1] for name in ("exact", "cold"))
    point = point._replace(shared=jax.tree.map(lambda p, g: p - 0.02 * g, point.shared, exact.shared))
  off = lambda found: float(np.linalg.norm(found.initial["w"] - exact.initial["w"]))
  assert off(grads) < 0.5 * off(cold)


def test_it_starts_again_after_a_meta_step_that_was_not_finite():
  inner = toy.loop(rules.sgd(1e30), 8, prox=PROX)
  estimate = warm_implicit(inner, linear_solve.cg(2), carry_params=True)
  _, carry = calls(estimate, toy.meta_params(), toy.task(), 1)
  toy.assert_close(carry, estimate.init(toy.meta_params()))


def test_every_slot_of_a_meta_step_has_its_own_solution():
  inner = toy.loop(prox=PROX)
  estimate, tasks, meta_params = warm_implicit(inner, linear_solve.cg(1)), toy.tasks(2), toy.meta_params()
  keys = jax.random.split(toy.key(), 2)
  starts = jax.vmap(lambda _: estimate.init(meta_params))(jnp.arange(2))
  _, carry = toy.jit(jax.vmap(estimate.grad, (None, 0, 0, 0)))(meta_params, tasks, keys, starts)
  for slot in range(2):
    task = jax.tree.map(lambda leaf, slot=slot: leaf[slot], tasks)
    _, alone = toy.jit(estimate.grad)(meta_params, task, keys[slot], estimate.init(meta_params))
    toy.assert_close(jax.tree.map(lambda leaf, slot=slot: leaf[slot], carry), alone, rtol=1e-8)


def test_bad_input():
  with pytest.raises(ValueError, match=r"implicit needs InnerLoop.prox > 0"):
    warm_implicit(toy.loop(), linear_solve.cg(2))
  with pytest.raises(ValueError, match="solve must be a LinearSolve"):
    warm_implicit(toy.loop(prox=PROX), 5)
