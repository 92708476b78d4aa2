"""SOBA: its three simultaneous updates by hand, and the gradient that it comes to at a fixed point."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import along_trajectory, implicit, soba
from warpjax.tasks import bilevel_quadratic
from warpjax.types import MetaParams

pytestmark = pytest.mark.usefixtures("x64")

RATE, STEP, PROX = 0.5, 0.4, 0.3


def quadratic(num_steps=1, prox=0.0):
  inner = wj.InnerLoop(
    bilevel_quadratic.loss, rules.sgd(RATE), num_steps, prox=prox, query_loss_fn=bilevel_quadratic.query_loss
  )
  task = bilevel_quadratic.sampler(6, 4, condition_number=3.0)(toy.key())
  return soba(inner, STEP), MetaParams(toy.draw(0, 6), toy.draw(1, 4)), task


def calls(estimate, meta_params, task, count, move=0.0):
  """The gradients of some meta-steps, after each of which `shared` moves against them."""
  call, carry, found = toy.jit(estimate.grad), estimate.init(meta_params), []
  for _ in range(count):
    (value, grads), carry = call(meta_params, task, toy.key(), carry)
    found.append((value, grads))
    shared = jax.tree.map(lambda p, g: p - move * g, meta_params.shared, grads.shared)
    meta_params = meta_params._replace(shared=shared)
  return found, meta_params, carry


@pytest.mark.parametrize("prox", [0.0, PROX])
def test_the_three_updates_are_simultaneous(prox):
  estimate, (start, phi), task = quadratic(prox=prox)[0], quadratic()[1][:2], quadratic()[2]
  found, at, carry = calls(estimate, MetaParams(start, phi), task, 5, move=0.1)
  (curvature, mixed, linear), (target, outer, constant) = task
  theta, v, hessian = start, jnp.zeros(6), curvature + prox * jnp.eye(6)
  for (loss, aux), grads in found:
    b = theta - target
    np.testing.assert_allclose(loss, bilevel_quadratic.query_loss(theta, phi, task.query)[0], rtol=1e-12)
    np.testing.assert_allclose(aux["soba/residual"], jnp.linalg.norm(b - hessian @ v) / jnp.linalg.norm(b))
    np.testing.assert_allclose(grads.shared, outer.T @ (outer @ phi - constant) - mixed.T @ v, rtol=1e-9)
    np.testing.assert_allclose(grads.initial, prox * v, rtol=1e-9, atol=1e-12)
    gradient = curvature @ theta + mixed @ phi + linear + prox * (theta - start)
    theta, v, phi = theta - RATE * gradient, v - STEP * (hessian @ v - b), phi - 0.1 * grads.shared
  np.testing.assert_allclose(at.shared, phi, rtol=1e-9)
  np.testing.assert_allclose(carry.solution, v, rtol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_at_a_fixed_point_it_comes_to_the_hypergradient_that_finite_differences_have(num_steps):
  estimate, point, task = quadratic(num_steps, PROX)
  (_, grads), *_ = calls(estimate, point, task, 200 // num_steps)[0][::-1]
  theta = lambda phi: bilevel_quadratic.solution(task, point.initial, phi, prox=PROX)
  value = lambda phi: bilevel_quadratic.query_loss(theta(phi), phi, task.query)[0]
  ways = 1e-5 * jnp.eye(4)
  differences = [(value(point.shared + way) - value(point.shared - way)) / 2e-5 for way in ways]
  np.testing.assert_allclose(grads.shared, jnp.stack(differences), rtol=1e-6)
  exact = bilevel_quadratic.hypergradient(task, point.initial, point.shared, prox=PROX)
  np.testing.assert_allclose(grads.shared, exact, rtol=1e-8)


def test_at_a_fixed_point_it_comes_to_the_implicit_gradient_of_a_network():
  inner, task, point = toy.loop(rules.sgd(0.3), 400, prox=PROX), toy.task(), toy.meta_params()
  exact = toy.run(along_trajectory(inner, implicit(linear_solve.cg(40))), point, task)[1]
  found = calls(soba(inner, 0.3), point, task, 1)[0]
  toy.assert_close(found[0][1], exact, rtol=1e-6, atol=1e-9)


def test_moving_all_at_once_finds_the_solution_of_the_bilevel_problem():
  estimate, point, task = quadratic()
  _, last, _ = calls(estimate, point, task, 600, move=0.02)
  off = lambda at: np.linalg.norm(at.shared - bilevel_quadratic.minimum(task, point.initial))
  assert off(last) < 0.02 * off(point)


def test_it_starts_again_after_a_meta_step_that_was_not_finite():
  estimate = soba(toy.loop(rules.sgd(1e300), 4, prox=PROX), 0.1)
  carry = calls(estimate, toy.meta_params(), toy.task(), 1)[2]
  toy.assert_close(carry, estimate.init(toy.meta_params()))


def test_vmapped_slots_have_variables_of_their_own():
  estimate, tasks, point = soba(toy.loop(prox=PROX), 0.1), toy.tasks(2), toy.meta_params()
  keys, starts = jax.random.split(toy.key(), 2), jax.vmap(lambda _: estimate.init(point))(jnp.arange(2))
  together = toy.jit(jax.vmap(estimate.grad, (None, 0, 0, 0)))(point, tasks, keys, starts)
  for slot in range(2):
    pick = lambda tree, slot=slot: jax.tree.map(lambda leaf: leaf[slot], tree)
    toy.assert_close(pick(together), estimate.grad(point, pick(tasks), keys[slot], estimate.init(point)), rtol=1e-8)


def test_bad_input():
  with pytest.raises(ValueError, match="step_size must be above 0; got -1"):
    soba(toy.loop(), -1)
  estimate, empty = soba(toy.loop(), 0.1), toy.meta_params()._replace(shared=())
  with pytest.raises(ValueError, match=r"soba needs InnerLoop.prox > 0, or a shared block"):
    estimate.grad(empty, toy.task(), toy.key(), estimate.init(empty))
