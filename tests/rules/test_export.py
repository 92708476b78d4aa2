"""A rule outside of warpjax: `as_optax` in a training loop of one's own."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from tests.test_conformance import RULES
from warpjax import rules

pytestmark = pytest.mark.usefixtures("strict")


@pytest.mark.parametrize(
  "name", ["adam", "alfa", "chain", "kronecker", "l2l_lstm", "learned", "meta_lstm", "per_step_sgd"]
)
def test_an_exported_rule_takes_the_inner_loop_s_steps(name):
  rule, task = RULES[name](), toy.task()
  meta_params = toy.meta_params(rule)
  meta_params = meta_params._replace(rule=jax.tree.map(lambda leaf: leaf + 0.01, meta_params.rule))
  expected = toy.jit(lambda m, t: wj.adapt(toy.loop(rule), m, t, toy.key()).final.params)(meta_params, task)

  optimizer = rules.as_optax(rule, meta_params.rule)
  params, state = meta_params.initial, optimizer.init(meta_params.initial)

  @toy.jit
  def train_step(params, state):
    value, grads = jax.value_and_grad(lambda p: toy.loss_fn(p, meta_params.shared, task.support)[0])(params)
    updates, state = optimizer.update(grads, state, params, value=value)
    return optax.apply_updates(params, updates), state

  for _ in range(3):
    params, state = train_step(params, state)
  toy.assert_close(params, expected)
  assert np.any(params["w"] != meta_params.initial["w"])


def test_bad_input():
  with pytest.raises(ValueError, match="rule must be an UpdateRule; got 0.1"):
    rules.as_optax(0.1, ())
  optimizer = rules.as_optax(rules.meta_sgd(0.1), {"w": toy.draw(0, 2)})
  with pytest.raises(ValueError, match=r"rule_params must be those that meta_sgd has for these.*\(3,\).*got.*\(2,\)"):
    optimizer.init({"w": toy.draw(0, 3)})
