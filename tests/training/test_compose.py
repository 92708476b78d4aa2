"""Meta-steps in phases, and repeated on the same tasks."""

from __future__ import annotations

import functools

import chex
import jax
import numpy as np
import optax
import pytest

from tests import toy
from warpjax import rules, training
from warpjax.meta_gradients import truncated_unroll, unrolled
from warpjax.training import compose

pytestmark = pytest.mark.usefixtures("strict")

RULE, OPTIMIZER = rules.meta_sgd(0.2), optax.sgd(0.1)


def start(meta_grad=None):
  return training.init(toy.key(), RULE, toy.initial(), toy.shared(), OPTIMIZER, meta_grad=meta_grad, tasks_per_step=2)


@functools.cache
def step_of(derivative):
  return training.meta_step(unrolled(toy.loop(RULE), derivative), OPTIMIZER)


def test_phases_are_the_two_steps_one_after_the_other():
  phased = toy.jit(chex.assert_max_traces(compose.in_phases(2, step_of("first_order"), step_of("mixed")), n=1))
  state = expected = start()
  for order in ("first_order", "first_order", "mixed", "mixed"):
    expected, metrics = toy.jit(step_of(order))(expected, toy.tasks(2))
    state, seen = phased(state, toy.tasks(2))
    toy.assert_close((state.meta_params, seen["loss"]), (expected.meta_params, metrics["loss"]))


def test_repeated_segments_are_one_adaptation_with_an_update_after_each():
  estimate = truncated_unroll(toy.loop(RULE, 4), 2)
  segment = training.meta_step(estimate, OPTIMIZER)
  state, metrics = toy.jit(compose.repeated(segment, 2))(start(estimate), toy.tasks(2))
  first, seen_first = toy.jit(segment)(start(estimate), toy.tasks(2))
  second, seen_second = toy.jit(segment)(first._replace(step=first.step - 1), toy.tasks(2))
  toy.assert_close((state.meta_params, state.carry), (second.meta_params, second.carry))
  np.testing.assert_allclose(metrics["loss"], (seen_first["loss"] + seen_second["loss"]) / 2)
  assert state.step == 1 and metrics["finite"] and metrics["finite"].dtype == bool


def test_one_update_that_is_not_finite_shows():
  def step(state, tasks):
    del tasks
    return state._replace(step=state.step + 1), {
      "loss": jax.numpy.ones(()),
      "finite": state.meta_params.rule["b"][0] > 0,
    }

  state = start()
  assert compose.repeated(step, 2)(state, None)[1]["finite"]
  negative = state._replace(meta_params=state.meta_params._replace(rule=optax.tree.scale(-1, state.meta_params.rule)))
  assert not compose.repeated(step, 2)(negative, None)[1]["finite"]


def test_bad_input():
  over = training.meta_step(unrolled(toy.loop(RULE)), OPTIMIZER, axis_name="devices")
  with pytest.raises(ValueError, match="axis_name must be the same"):
    compose.in_phases(1, step_of("mixed"), over)
  with pytest.raises(ValueError, match="until must be an integer of at least 1; got 0"):
    compose.in_phases(0, over, over)
  with pytest.raises(ValueError, match="times must be an integer of at least 1; got 0"):
    compose.repeated(over, 0)
  assert compose.in_phases(1, over, over).axis_name == compose.repeated(over, 2).axis_name == "devices"
