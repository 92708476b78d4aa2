"""Gradient descent, Adam and optax transformations as update rules."""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

GRADIENTS = np.array([[1.0, -2.0], [0.5, 0.0], [-3.0, 1.0]])


def moves(rule):
  """What the rule makes of GRADIENTS, one after another, `[3, 2]`."""
  assert rule.init(toy.key(), jnp.zeros(2)) == ()
  transform = rule.transform(())
  state, out = transform.init(jnp.zeros(2)), []
  for gradient in GRADIENTS:
    update, state = transform.update(jnp.asarray(gradient), state, jnp.zeros(2))
    out.append(np.asarray(update))
  return np.stack(out)


def test_sgd_is_the_learning_rate_times_the_gradient():
  np.testing.assert_allclose(moves(rules.sgd(0.1)), -0.1 * GRADIENTS, rtol=1e-14)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum(nesterov):
  buffers = np.stack(list(itertools.accumulate(GRADIENTS, lambda buffer, gradient: 0.9 * buffer + gradient)))
  expected = GRADIENTS + 0.9 * buffers if nesterov else buffers
  np.testing.assert_allclose(moves(rules.sgd(0.1, 0.9, nesterov=nesterov)), -0.1 * expected, rtol=1e-14)


def test_schedules_count_inner_steps():
  rates = np.array([[0.1], [0.05], [0.025]])
  np.testing.assert_allclose(moves(rules.sgd(lambda count: 0.1 * 0.5**count)), -rates * GRADIENTS, rtol=1e-14)


def test_adam_against_its_formula():
  b1, b2, eps, eps_root = 0.8, 0.9, 1e-3, 1e-2
  m = v = np.zeros(2)
  for step, (move, g) in enumerate(zip(moves(rules.adam(0.1, b1, b2, eps, eps_root)), GRADIENTS, strict=True), 1):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    m_hat, v_hat = m / (1 - b1**step), v / (1 - b2**step)
    np.testing.assert_allclose(move, -0.1 * m_hat / (np.sqrt(v_hat + eps_root) + eps), rtol=1e-12)


@pytest.mark.parametrize("derivative", ["mixed", "reverse"])
def test_adam_at_a_zero_gradient(derivative):
  """There, with H = 1, one step is `theta - lr g / (1e-4 + 1e-8)` to first order; without eps_root it is refused."""
  loss = lambda params, shared, batch: (0.5 * (params - batch) ** 2, {})
  meta_params, task = MetaParams(jnp.array(2.0)), Task(jnp.array(2.0), jnp.array(1.0))

  def meta_gradient(rule):
    return toy.run(unrolled(wj.InnerLoop(loss, rule, 1), derivative), meta_params, task)[1].initial

  np.testing.assert_allclose(meta_gradient(rules.adam(0.1)), 1 - 0.1 / (1e-4 + 1e-8), rtol=1e-10)
  with pytest.raises(ValueError, match="unrolled cannot differentiate the rule 'adam': its derivative is not finite"):
    meta_gradient(rules.adam(0.1, eps_root=0.0))
  assert np.isnan(meta_gradient(rules.adam(0.1, eps_root=0.0)._replace(finite_at_zero=True)))


def test_from_optax_is_the_transformation_itself():
  transformation = optax.rmsprop(0.1)
  rule = rules.from_optax(transformation)
  assert rule.transform(()) is transformation and rule.differentiable
  assert not rules.from_optax(transformation, differentiable=False).differentiable


def test_from_optax_gives_value_driven_transformations_the_inner_loss():
  """Polyak's step `value / |g|^2` halves the distance to a quadratic's minimum of value zero."""
  loss = lambda params, shared, batch: (jnp.sum((params - batch) ** 2), {})
  inner = wj.InnerLoop(loss, rules.from_optax(optax.polyak_sgd(max_learning_rate=10.0)), 2)
  final = wj.adapt(inner, MetaParams(jnp.array([4.0, 8.0])), Task(jnp.zeros(2), jnp.zeros(2)), toy.key()).final
  np.testing.assert_allclose(final.params, [1.0, 2.0], rtol=1e-12)


@pytest.mark.parametrize("rate", [0, -0.1, float("inf"), float("nan"), "0.1", True, None])
@pytest.mark.parametrize("rule", [rules.sgd, rules.adam])
def test_bad_learning_rates(rule, rate):
  with pytest.raises(ValueError, match=f"learning_rate must be a positive number or an optax schedule; got {rate!r}"):
    rule(rate)


def test_numpy_numbers_are_numbers():
  assert rules.sgd(np.float32(0.1)).name == "sgd" and rules.meta_sgd(np.float32(0.1)).name == "meta_sgd"


def test_what_is_not_a_transformation():
  with pytest.raises(ValueError, match=r"transformation must be an optax.GradientTransformation; got 0.1"):
    rules.from_optax(0.1)


def test_rmsprop_divides_by_the_average_from_where_it_starts():
  rule, average, expected = rules.rmsprop(0.1, decay=0.4, eps=1e-8, initial_scale=1.0), np.ones(2), []
  for gradient in GRADIENTS:
    average = 0.4 * average + 0.6 * gradient**2
    expected.append(-0.1 * gradient / np.sqrt(average + 1e-8))
  np.testing.assert_allclose(moves(rule), expected, rtol=1e-9)
