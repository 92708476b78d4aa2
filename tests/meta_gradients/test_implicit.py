"""The implicit gradient: closed forms, a long unroll, and any inner solver."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import along_trajectory, implicit, implicit_released, unrolled
from warpjax.tasks import quadratic
from warpjax.types import MetaParams

pytestmark = pytest.mark.usefixtures("x64")

PROX, DIM = 0.5, 6


def quadratic_task():
  return quadratic.sampler(DIM, condition_number=5.0)(toy.key())


def quadratic_loop(rule=None, num_steps=1, **kwargs):
  return wj.InnerLoop(quadratic.loss, rule or rules.newton_cg(2 * DIM), num_steps, prox=PROX, **kwargs)


def test_closed_form_of_a_quadratic():
  task, initial = quadratic_task(), toy.draw(0, DIM)
  inner = quadratic_loop(num_steps=2)
  (value, aux), grads = toy.run(along_trajectory(inner, implicit(linear_solve.cg(2 * DIM))), MetaParams(initial), task)
  point = quadratic.prox_point(task, initial, prox=PROX)
  np.testing.assert_allclose(value, quadratic.loss(point, (), task.query)[0], rtol=1e-8)
  np.testing.assert_allclose(grads.initial, quadratic.implicit_meta_gradient(task, initial, prox=PROX), rtol=1e-8)
  assert aux["implicit/residual"] < 1e-10
  assert aux["implicit/inner_gradient_norm"] < 1e-8
  assert 1 <= aux["implicit/iterations"] <= 2 * DIM


def test_equals_a_long_unroll():
  task, initial = quadratic_task(), toy.draw(0, DIM)
  inner = quadratic_loop(rules.sgd(0.6), 100)
  run = lambda estimate: toy.jit(estimate)(MetaParams(initial), task, toy.key())[1].initial
  solved = run(along_trajectory(inner, implicit(linear_solve.cg(2 * DIM))))
  np.testing.assert_allclose(solved, run(unrolled(inner)), rtol=1e-8)
  np.testing.assert_allclose(solved, quadratic.implicit_meta_gradient(task, initial, prox=PROX), rtol=1e-8)


def test_every_block_against_finite_differences_of_a_solved_problem():
  inner = toy.loop(rules.sgd(0.6), 150, prox=PROX)
  estimate = toy.jit(along_trajectory(inner, implicit(linear_solve.cg(20))))
  meta_params, task = toy.meta_params(), toy.task()
  (_, aux), grads = estimate(meta_params, task, toy.key())
  assert aux["implicit/inner_gradient_norm"] < 1e-12
  toy.assert_slopes(lambda point: estimate(point, task, toy.key())[0][0], meta_params, grads)
  assert optax.tree.norm(grads.shared) > 1e-3


SOLVERS = {
  "gradient_descent": (rules.sgd(0.6), 120),
  "momentum": (rules.sgd(0.3, 0.7), 150),
  "adam": (rules.adam(optax.exponential_decay(0.05, 1, 0.997)), 1500),
  "lbfgs": (rules.from_optax(optax.lbfgs(), differentiable=False), 20),
  "newton_cg": (rules.newton_cg(9), 8),
}


def solved(rule, num_steps):
  return along_trajectory(toy.loop(rule, num_steps, prox=PROX), implicit(linear_solve.cg(20)))


@functools.cache
def newton_s():
  estimate = solved(rules.newton_cg(12, damping=0.01), 10)
  (_, aux), grads = toy.jit(estimate)(toy.meta_params(), toy.task(), toy.key())
  assert aux["implicit/inner_gradient_norm"] < 1e-8
  return grads


SLOW = ("gradient_descent", "momentum")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SOLVERS])
def test_any_inner_solver_run_to_tolerance_gives_the_same_gradient(name):
  rule, num_steps = SOLVERS[name]
  (_, aux), grads = toy.jit(solved(rule, num_steps))(toy.meta_params(), toy.task(), toy.key())
  assert aux["implicit/inner_gradient_norm"] < 1e-8
  toy.assert_close(grads, newton_s(), rtol=1e-6, atol=1e-8)


def test_the_operator_is_the_paper_s_at_any_point():
  """`(I + H / lambda) x = b`, and the released code's `2 x + H x / (lambda + 10) = b` under its own name."""
  meta_params, task = toy.meta_params(), toy.task()
  inner = toy.loop(prox=2.0)

  @toy.jit
  def derivatives():
    final = wj.adapt(inner, meta_params, task, toy.key()).final.params
    flat, unravel = jax.flatten_util.ravel_pytree(final)
    loss = lambda vector, batch: toy.loss_fn(unravel(vector), meta_params.shared, batch)[0]
    return jax.hessian(loss)(flat, task.support), jax.grad(loss)(flat, task.query)

  hessian, outer = map(np.asarray, derivatives())
  systems = {
    "paper": (implicit(linear_solve.cg(40)), np.eye(outer.size) + hessian / 2.0),
    "released": (implicit_released(40), 2.0 * np.eye(outer.size) + hessian / 12.0),
  }
  for name, (contribution, matrix) in systems.items():
    (_, aux), grads = toy.run(along_trajectory(inner, contribution), meta_params, task)
    found = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads.initial)])
    expected = np.linalg.solve(matrix, outer)
    # The released code stops at a relative residual of 1e-5.
    np.testing.assert_allclose(found, expected, rtol=1e-8 if name == "paper" else 1e-4)
    assert aux["implicit/residual"] < (1e-10 if name == "paper" else 1e-5)


def test_what_is_reported_of_an_unsolved_problem():
  meta_params, task, inner = toy.meta_params(), toy.task(), toy.loop(num_steps=1, prox=PROX)
  (_, aux), grads = toy.run(along_trajectory(inner, implicit(linear_solve.cg(1))), meta_params, task)

  @toy.jit
  def inner_gradient_norm():
    final = wj.adapt(inner, meta_params, task, toy.key()).final.params
    gradient = jax.grad(toy.loss_fn, has_aux=True)(final, meta_params.shared, task.support)[0]
    pulled = jax.tree.map(lambda g, p, p0: g + PROX * (p - p0), gradient, final, meta_params.initial)
    return optax.tree.norm(pulled)

  np.testing.assert_allclose(aux["implicit/inner_gradient_norm"], inner_gradient_norm(), rtol=1e-10)
  assert aux["implicit/inner_gradient_norm"] > 1e-2
  assert aux["implicit/iterations"] == 1 and aux["implicit/residual"] > 1e-3
  toy.assert_zero(grads.rule)


def test_any_linear_solve_fits():
  task, initial = quadratic_task(), toy.draw(0, DIM)
  solves = (linear_solve.cg(2 * DIM), linear_solve.neumann(400, step_size=0.3))
  first, second = (
    toy.run(along_trajectory(quadratic_loop(num_steps=2), implicit(solve)), MetaParams(initial), task)[1].initial
    for solve in solves
  )
  np.testing.assert_allclose(first, second, rtol=1e-8)


def test_bad_input():
  for prox in (0.0, 0, np.float32(0)):
    with pytest.raises(ValueError, match=r"implicit needs InnerLoop.prox > 0 .* got .*0"):
      along_trajectory(toy.loop(prox=prox), implicit(linear_solve.cg(5)))
  for prox in (-1.0, np.float32(-1), float("nan")):
    with pytest.raises(ValueError, match="InnerLoop.prox must be finite and at least 0; got "):
      along_trajectory(toy.loop(prox=prox), implicit(linear_solve.cg(5)))
  with pytest.raises(ValueError, match="solve must be a LinearSolve"):
    implicit(5)
  inner = wj.InnerLoop(lambda params, shared, batch: (jnp.sum((shared - batch) ** 2), {}), rules.sgd(0.1), 1, prox=1.0)
  with pytest.raises(ValueError, match=r"implicit needs parameters that adapt; MetaParams.initial has none, \(\)"):
    nothing = MetaParams(initial=(), shared=jnp.zeros(2))
    toy.run(along_trajectory(inner, implicit(linear_solve.cg(5))), nothing, wj.Task(jnp.ones(2), jnp.ones(2)))
