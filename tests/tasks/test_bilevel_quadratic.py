"""Bilevel quadratics: closed forms against derivatives, and every estimator of `shared` against them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import linear_solve, meta_gradients, rules
from warpjax.tasks import bilevel_quadratic as quadratic
from warpjax.types import MetaParams

pytestmark = pytest.mark.usefixtures("x64")

PROX, DIM, OUTER = 0.2, 6, 4


def problem():
  return quadratic.sampler(DIM, OUTER, condition_number=5.0)(toy.key()), toy.draw(0, DIM), toy.draw(1, OUTER)


def test_the_solution_is_stationary():
  task, initial, phi = problem()
  g = lambda theta: quadratic.loss(theta, phi, task.support)[0] + PROX / 2 * jnp.sum((theta - initial) ** 2)
  np.testing.assert_allclose(jax.grad(g)(quadratic.solution(task, initial, phi, prox=PROX)), 0, atol=1e-12)


@pytest.mark.parametrize("prox", [0.0, PROX])
def test_the_hypergradient_is_the_derivative_at_the_solution_and_zero_at_the_minimum(prox):
  task, initial, phi = problem()
  value = lambda phi: quadratic.query_loss(quadratic.solution(task, initial, phi, prox=prox), phi, task.query)[0]
  np.testing.assert_allclose(quadratic.hypergradient(task, initial, phi, prox=prox), jax.grad(value)(phi), rtol=1e-9)
  best = quadratic.minimum(task, initial, prox=prox)
  np.testing.assert_allclose(jax.grad(value)(best), 0, atol=1e-9)
  assert value(best) < value(phi)


ALONG = meta_gradients.along_trajectory
EXACT = {
  "unrolled": meta_gradients.unrolled,
  "implicit": lambda inner: ALONG(inner, meta_gradients.implicit(linear_solve.cg(DIM))),
  "penalty": lambda inner: meta_gradients.penalty(inner, 1e6),
}


@pytest.mark.parametrize("name", EXACT)
def test_estimators_reach_the_hypergradient(name):
  task, initial, phi = problem()
  inner = wj.InnerLoop(quadratic.loss, rules.sgd(0.8), 300, prox=PROX, query_loss_fn=quadratic.query_loss)
  _, grads = toy.run(EXACT[name](inner), MetaParams(initial, phi), task)
  expected = quadratic.hypergradient(task, initial, phi, prox=PROX)
  np.testing.assert_allclose(grads.shared, expected, rtol=1e-5 if name == "penalty" else 1e-8)


def test_bad_input():
  with pytest.raises(ValueError, match="outer_dim must be an integer of at least 1; got 0"):
    quadratic.sampler(3, 0)
  with pytest.raises(ValueError, match=r"condition_number must be at least 1; got 0.5"):
    quadratic.sampler(3, 2, condition_number=0.5)
