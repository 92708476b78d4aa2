"""What is compiled, and how often: program size against inner steps."""

from __future__ import annotations

import jax
import optax
import pytest

from tests import toy
from warpjax import training
from warpjax.linear_solve import cg
from warpjax.meta_gradients import along_trajectory, implicit, leap, unrolled, warp

ESTIMATORS = {
  "mixed": unrolled,
  "reverse": lambda inner: unrolled(inner, "reverse"),
  "truncated": lambda inner: unrolled(inner, truncate=2),
  "warp_leap": lambda inner: along_trajectory(inner, leap(), warp()),
  "implicit": lambda inner: along_trajectory(inner, implicit(cg(2))),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_program_does_not_grow_with_the_inner_steps(name):
  """Compile time follows the program's size, which 100 inner steps leave as 5 do."""
  optimizer, params = optax.sgd(0.1), toy.meta_params()
  state = training.init(toy.key(), toy.loop().rule, params.initial, params.shared, optimizer)

  def lines(num_steps):
    estimate = ESTIMATORS[name](toy.loop(num_steps=num_steps, prox=0.5))
    lowered = jax.jit(training.meta_step(estimate, optimizer)).lower(state, toy.tasks(2))
    return len(lowered.as_text().splitlines())

  assert lines(100) == lines(5)
