"""One-step differentiation: the last step's derivative, and how far that is from the solution's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import along_trajectory, one_step, unrolled
from warpjax.tasks import quadratic
from warpjax.types import MetaParams

pytestmark = pytest.mark.usefixtures("x64")

PROX, DIM = 0.5, 6


def solved_by_newton():
  return rules.preconditioned(lambda inverse, params, grads: inverse @ grads, 1.0, lambda key, params: jnp.eye(DIM))


def test_exact_for_a_step_that_solves_the_problem():
  task, initial = quadratic.sampler(DIM, condition_number=5.0)(toy.key()), toy.draw(0, DIM)
  matrix = task.support[0]
  inverse = jnp.linalg.inv(matrix.T @ matrix + PROX * jnp.eye(DIM))
  inner = wj.InnerLoop(quadratic.loss, solved_by_newton(), 2, prox=PROX)
  _, grads = toy.run(along_trajectory(inner, one_step()), MetaParams(initial, (), inverse), task)
  np.testing.assert_allclose(grads.initial, quadratic.implicit_meta_gradient(task, initial, prox=PROX), rtol=1e-8)


@pytest.mark.parametrize("condition", [1.2, 2.0, 5.0])
def test_off_by_the_rate_of_contraction_at_most(condition):
  task, initial = quadratic.sampler(DIM, condition_number=condition)(toy.key()), toy.draw(0, DIM)
  rate = 2 / (1 + 1 / condition + 2 * PROX)  # the best for curvatures between 1 / condition and 1
  contraction = rate * (1 - 1 / condition) / 2
  inner = wj.InnerLoop(quadratic.loss, rules.sgd(rate), 200, prox=PROX)
  _, grads = toy.run(along_trajectory(inner, one_step()), MetaParams(initial), task)
  exact = quadratic.implicit_meta_gradient(task, initial, prox=PROX)
  query = jax.grad(lambda p: quadratic.loss(p, (), task.query)[0])(quadratic.prox_point(task, initial, prox=PROX))
  # dF / d initial = rate PROX I, as the update reads `initial` in the proximal term alone.
  np.testing.assert_allclose(grads.initial, rate * PROX * query, rtol=1e-6)
  bound = contraction / (1 - contraction) * rate * PROX * np.linalg.norm(query)
  assert 0 < np.linalg.norm(grads.initial - exact) <= bound


@pytest.mark.parametrize("rule", [rules.adam(0.05), rules.meta_sgd((0.01, 0.2))], ids=["adam", "meta_sgd"])
def test_every_block_against_finite_differences_of_the_last_step(rule):
  inner, meta_params, task = toy.loop(rule, prox=0.3), toy.meta_params(rule), toy.task()
  _, grads = toy.run(along_trajectory(inner, one_step()), meta_params, task)
  before = wj.adapt(inner, meta_params, task, toy.key(), num_steps=2).final

  @toy.jit
  def after_the_last_step(point):
    problem = wj.problem.Problem(inner, point, task, toy.key())
    return problem.query_loss(problem.step(before, 2).next.params, point.shared, 3)[0]

  toy.assert_slopes(after_the_last_step, meta_params, grads)


def test_of_one_step_is_unrolled_but_for_the_path_through_the_start():
  rule = rules.meta_sgd((0.01, 0.2))
  inner, meta_params = toy.loop(rule, num_steps=1), toy.meta_params(rule)
  alone = toy.run(along_trajectory(inner, one_step()), meta_params, toy.task())[1]
  through = toy.run(unrolled(inner), meta_params, toy.task())[1]
  toy.assert_close((alone.shared, alone.rule), (through.shared, through.rule))
  toy.assert_zero(alone.initial)
  assert optax.tree.norm(through.initial) > 0


def test_bad_input():
  with pytest.raises(ValueError, match=r"one_step\(\) needs InnerLoop.prox > 0, or a shared or a rule block"):
    along_trajectory(toy.loop(), one_step())(toy.meta_params()._replace(shared=()), toy.task(), toy.key())
