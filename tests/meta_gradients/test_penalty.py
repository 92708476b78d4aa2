"""The value-function penalty: closed forms, the derivative of its own objective, the implicit gradient as its limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import along_trajectory, implicit, penalty
from warpjax.tasks import quadratic
from warpjax.types import CarriedMetaGrad, MetaParams

pytestmark = pytest.mark.usefixtures("x64")

PROX, DIM = 0.5, 6


def solved_quadratic(task, initial, weight):
  """y, z and `w prox (z - y)`, by linear algebra."""
  (matrix, target), (query_matrix, query_target) = task
  curvature = matrix.T @ matrix + PROX * jnp.eye(DIM)
  z = quadratic.prox_point(task, initial, prox=PROX)
  both = query_matrix.T @ query_matrix + weight * curvature
  y = jnp.linalg.solve(both, query_matrix.T @ query_target + weight * (matrix.T @ target + PROX * initial))
  return y, z, weight * PROX * (z - y)


@pytest.mark.parametrize("weight", [0.3, 5.0, 200.0])
def test_closed_form_of_a_quadratic(weight):
  task, initial = quadratic.sampler(DIM, condition_number=5.0)(toy.key()), toy.draw(0, DIM)
  inner = wj.InnerLoop(quadratic.loss, rules.sgd(0.6), 200, prox=PROX)
  (value, aux), grads = toy.run(penalty(inner, weight), MetaParams(initial), task)
  y, z, expected = solved_quadratic(task, initial, weight)
  np.testing.assert_allclose(grads.initial, expected, rtol=1e-7)
  np.testing.assert_allclose(value, quadratic.loss(z, (), task.query)[0], rtol=1e-8)
  below = lambda point: quadratic.loss(point, (), task.support)[0] + PROX / 2 * jnp.sum((point - initial) ** 2)
  np.testing.assert_allclose(aux["penalty/gap"], below(y) - below(z), rtol=1e-6)


def test_the_implicit_gradient_is_its_limit_and_the_error_falls_as_one_over_the_weight():
  task, initial = quadratic.sampler(DIM, condition_number=5.0)(toy.key()), toy.draw(0, DIM)
  inner = wj.InnerLoop(quadratic.loss, rules.sgd(0.6), 200, prox=PROX)
  exact = quadratic.implicit_meta_gradient(task, initial, prox=PROX)
  found = [toy.run(penalty(inner, weight), MetaParams(initial), task)[1].initial for weight in (100.0, 1000.0)]
  errors = [np.linalg.norm(each - exact) / np.linalg.norm(exact) for each in found]
  assert errors[0] < 0.05 and 8 < errors[0] / errors[1] < 12


def test_every_block_against_finite_differences_of_the_penalised_objective():
  """By the envelope theorem it is the derivative of `min_y f + w (g - min_z g)`."""
  inner, weight, task = toy.loop(rules.sgd(0.3), 400, prox=PROX), 3.0, toy.task()
  _, grads = toy.run(penalty(inner, weight), toy.meta_params(), task)

  @toy.jit
  def objective(point):
    problem = wj.problem.Problem(inner, point, task, toy.key())
    g = lambda theta: problem.inner_objective(theta, point.shared, task.support)
    f = lambda theta: toy.loss_fn(theta, point.shared, task.query)[0]
    down = lambda function, start: jax.lax.fori_loop(
      0, 300, lambda _, p: jax.tree.map(lambda at, by: at - 0.3 * by, p, jax.grad(function)(p)), start
    )
    z = down(g, point.initial)
    y = down(lambda theta: f(theta) / weight + g(theta), z)
    return f(y) + weight * (g(y) - g(z))

  toy.assert_slopes(objective, toy.meta_params(), grads, rtol=1e-6)
  toy.assert_zero(grads.rule)


def test_shared_tends_to_the_implicit_gradient_of_shared():
  inner, task = toy.loop(rules.sgd(0.6), 300, prox=PROX), toy.task()
  exact = toy.run(along_trajectory(inner, implicit(linear_solve.cg(20))), toy.meta_params(), task)[1]
  near = toy.run(penalty(inner, 1e5), toy.meta_params(), task)[1]
  toy.assert_close(near, exact, rtol=2e-3, atol=1e-5)


def test_carried_solutions_reach_with_a_step_a_time_what_a_long_run_does():
  """V-PBGD's setting, at fixed meta-parameters: one step for y, one for z, each meta-step."""
  inner, task = toy.loop(rules.sgd(0.6), 1, prox=PROX), toy.task()
  estimate = penalty(inner, 20.0, num_steps=1, carried=True)
  assert isinstance(estimate, CarriedMetaGrad)

  call = toy.jit(lambda carry: estimate.grad(toy.meta_params(), task, toy.key(), carry))
  carry, results = estimate.init(toy.meta_params()), []
  for _ in range(250):
    result, carry = call(carry)
    results.append(result)
  long = toy.run(penalty(inner._replace(num_steps=250), 20.0), toy.meta_params(), task)
  toy.assert_close(results[-1][1], long[1], rtol=1e-6, atol=1e-9)
  assert np.abs(np.asarray(results[0][1].shared["warp"] - long[1].shared["warp"])).max() > 1e-3
  assert int(carry.meta_steps) == 250


def test_a_weight_that_grows_is_read_at_the_meta_steps_done():
  """F2SA's schedule."""
  inner, task = toy.loop(rules.sgd(0.3), 4, prox=PROX), toy.task()
  growing = penalty(inner, lambda count: 1.0 + 2.0 * count)
  carry = growing.init(toy.meta_params())
  for weight in (1.0, 3.0, 5.0):
    found, carry = growing.grad(toy.meta_params(), task, toy.key(), carry)
    toy.assert_close(found, penalty(inner, weight)(toy.meta_params(), task, toy.key()))


def test_solutions_that_ran_away_start_again():
  inner = toy.loop(rules.sgd(1e8), 8, prox=PROX)
  estimate = penalty(inner, 1.0, carried=True)
  _, carry = toy.jit(estimate.grad)(toy.meta_params(), toy.task(), toy.key(), estimate.init(toy.meta_params()))
  start = estimate.init(toy.meta_params())
  toy.assert_close(carry._replace(meta_steps=start.meta_steps), start)
  assert int(carry.meta_steps) == 1


def test_memory_does_not_grow_with_the_steps():
  def temporaries(steps):
    inner = toy.loop(rules.sgd(0.1), steps, prox=PROX)
    lowered = toy.jit(penalty(inner, 2.0)).lower(toy.meta_params(), toy.task(), toy.key())
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert temporaries(4) == temporaries(64)


def test_bad_input():
  for weight in (0.0, -1.0, float("inf"), "1"):
    with pytest.raises(ValueError, match=f"weight must be finite and above 0, .*; got {weight!r}"):
      penalty(toy.loop(prox=PROX), weight)
  with pytest.raises(ValueError, match="num_steps must be None or an integer of at least 1; got 0"):
    penalty(toy.loop(prox=PROX), 1.0, num_steps=0)
  with pytest.raises(ValueError, match=r"penalty\(\) needs InnerLoop.prox > 0, or a shared block"):
    penalty(toy.loop(), 1.0)(toy.meta_params()._replace(shared=()), toy.task(), toy.key())
