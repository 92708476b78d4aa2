"""The Hessian-free step: exact on quadratics, safe elsewhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.tasks import quadratic
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("x64")

DIM = 4
NO_DATA = Task(0.0, 0.0)


def points(loss, rule, start, task=NO_DATA, num_steps=1, prox=0.0):
  """Where the rule goes from `start`."""
  inner = wj.InnerLoop(loss, rule, num_steps, prox=prox)
  run = toy.jit(lambda m, t: wj.adapt(inner, m, t, toy.key(), record=True).steps.next.params)
  return run(MetaParams(jnp.asarray(start)), task)


@pytest.mark.parametrize("prox", [0.0, 0.7])
def test_one_step_solves_a_quadratic(prox):
  task, start = quadratic.sampler(DIM, condition_number=5.0)(toy.key()), toy.draw(0, DIM)
  (point,) = points(quadratic.loss, rules.newton_cg(DIM), start, task, prox=prox)
  np.testing.assert_allclose(point, quadratic.prox_point(task, start, prox=prox), rtol=1e-9)


def test_masked_it_solves_for_what_it_moves():
  """With the rest held, a quadratic's minimum in the masked-in coordinates is the solution of their own block."""
  task, start = quadratic.sampler(DIM, condition_number=5.0)(toy.key()), toy.draw(0, DIM)

  def loss(params, shared, batch):
    return quadratic.loss(jnp.concatenate([params["moved"], params["held"]]), shared, batch)

  rule = rules.chain(
    rules.masked(rules.newton_cg(2), {"moved": True, "held": False}), rules.freeze({"moved": False, "held": True})
  )
  inner = wj.InnerLoop(loss, rule, num_steps=1)
  initial = {"moved": start[:2], "held": start[2:]}
  meta_params = MetaParams(initial, rule=rule.init(toy.key(), initial))
  final = toy.jit(lambda t: wj.adapt(inner, meta_params, t, toy.key()).final.params)(task)
  np.testing.assert_array_equal(final["held"], start[2:])
  gradient = toy.jit(jax.grad(lambda params: loss(params, (), task.support)[0]))(final)
  np.testing.assert_allclose(gradient["moved"], 0.0, atol=1e-9)


def test_damping_is_added_to_the_hessian():
  task, start = quadratic.sampler(DIM)(toy.key()), toy.draw(0, DIM)
  (point,) = points(quadratic.loss, rules.newton_cg(DIM, damping=0.5), start, task)
  matrix, target = task.support
  hessian, gradient = matrix.T @ matrix, matrix.T @ (matrix @ start - target)
  np.testing.assert_allclose(point, start - jnp.linalg.solve(hessian + 0.5 * jnp.eye(DIM), gradient), rtol=1e-9)


def test_fewer_products_than_unknowns_go_part_of_the_way():
  task, start = quadratic.sampler(DIM)(toy.key()), toy.draw(0, DIM)
  seen = points(quadratic.loss, rules.newton_cg(2), start, task, num_steps=4)
  exact = quadratic.loss(quadratic.prox_point(task, start, prox=0.0), (), task.support)[0]
  gaps = [float(quadratic.loss(point, (), task.support)[0] - exact) for point in (start, *seen)]
  assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > 0 and gaps[1] > 1e-3 * gaps[0] > gaps[4]


def test_the_line_search_halves_a_step_that_overshoots_and_starts_afresh():
  """Newton's step on sqrt(1 + x^2) is -x (1 + x^2): from 2 a quarter of -10 is the first that descends."""
  loss = lambda x, shared, batch: (jnp.sqrt(1 + x**2), {})
  np.testing.assert_allclose(points(loss, rules.newton_cg(1), 2.0, num_steps=2), [-0.5, 0.125], rtol=1e-9)


def test_negative_curvature_falls_back_to_the_gradient():
  loss = lambda x, shared, batch: (0.25 * x**4 - 0.5 * x**2, {})
  np.testing.assert_allclose(points(loss, rules.newton_cg(3), 0.1), [0.1 + (0.1 - 0.1**3)], rtol=1e-12)


@pytest.mark.parametrize("loss", [lambda w, b: jnp.mean(jnp.abs(w - b)), lambda w, b: jnp.mean(jax.nn.relu(1 - w * b))])
def test_without_curvature_it_falls_back_to_the_gradient(loss):
  start = np.array([-0.5, 0.25])
  (point,) = points(lambda w, shared, batch: (loss(w, 1.0), {}), rules.newton_cg(3), start)
  np.testing.assert_allclose(point, start + 0.5, rtol=1e-12)


def test_at_a_minimum_it_stays():
  loss = lambda x, shared, batch: (jnp.sum((x - 1) ** 2), {})
  np.testing.assert_array_equal(points(loss, rules.newton_cg(3), np.ones(2), num_steps=2), np.ones((2, 2)))


def test_bad_input():
  refusals = {
    "cg_steps must be an integer of at least 1; got 0": {"cg_steps": 0},
    "damping must be finite and at least 0; got -1": {"damping": -1.0},
    "max_backtracking_steps must be an integer of at least 1; got 0": {"max_backtracking_steps": 0},
  }
  for message, arguments in refusals.items():
    with pytest.raises(ValueError, match=message):
      rules.newton_cg(**arguments)
