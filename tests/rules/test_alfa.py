"""ALFA: identities with SGD and with its step written out in NumPy, and its meta-gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import unrolled

pytestmark = pytest.mark.usefixtures("strict")

RULE = rules.alfa(0.1, 2, decay=0.5)


def moved(rule=RULE):
  """Rule parameters away from their start, where the generator is zero."""
  meta_params = toy.meta_params(rule)
  shifted = jax.tree.map(lambda leaf: leaf + toy.draw(leaf.size, *leaf.shape), meta_params.rule)
  return meta_params._replace(rule=shifted)


def by_hand(learned, points, grads):
  """The steps in NumPy, with tensors by name and one index for the step."""
  names, generator, params = sorted(points), learned["generator"], points
  for k, grad in enumerate(grads):
    means = [np.mean(params[name]) for name in names] + [np.mean(grad[name]) for name in names]
    hidden = np.maximum(means @ generator["hidden"]["kernel"] + generator["hidden"]["bias"], 0)
    factors = hidden @ generator["output"]["kernel"] + generator["output"]["bias"]
    after = {}
    for i, name in enumerate(names):
      rate, decay = (learned[kind][name][min(k, 1)] for kind in ("learning_rate", "decay"))
      alpha, beta = rate * (1 + factors[i]), 1 - decay * factors[len(names) + i]
      after[name] = beta * params[name] - alpha * grad[name]
    params = after
  return params


def test_a_generator_at_zero_is_sgd():
  """The start: whatever the decay, the values and the meta-gradients of `initial` and `shared` are those of SGD."""
  meta_params, task = toy.meta_params(RULE), toy.task()
  value, grads = toy.run(unrolled(toy.loop(RULE)), meta_params, task)
  plain_value, plain = toy.run(unrolled(toy.loop(rules.sgd(0.1))), meta_params._replace(rule=()), task)
  toy.assert_close((value, grads.initial, grads.shared), (plain_value, plain.initial, plain.shared))
  # The first layer has no gradient as long as the second is zero, which has one.
  toy.assert_zero((grads.rule["generator"]["hidden"], grads.rule["decay"]))
  assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(grads.rule["generator"]["output"]))


def test_a_constant_generator_is_a_step_size_and_a_decay_for_every_tensor_and_step():
  """Biases alone: `per_step_sgd` where the decay's factor is zero."""
  meta_params, task = toy.meta_params(RULE), toy.task()
  bias = jnp.array([0.5, -0.25, 0.0, 0.0])
  generator = meta_params.rule["generator"]
  biased = {**meta_params.rule, "generator": {**generator, "output": {**generator["output"], "bias": bias}}}
  mine = toy.run(unrolled(toy.loop(RULE)), meta_params._replace(rule=biased), task)[0][0]
  sizes = {"b": jnp.full(2, 0.15), "w": jnp.full(2, 0.075)}
  theirs = toy.run(unrolled(toy.loop(rules.per_step_sgd(0.1, 2))), meta_params._replace(rule=sizes), task)[0][0]
  np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_the_steps_of_the_paper():
  meta_params, inner = moved(), toy.loop(RULE)
  found = toy.jit(lambda: wj.adapt(inner, meta_params, toy.task(), toy.key(), record=True))()
  grads = [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), found.steps.grads) for k in range(3)]
  learned, initial = jax.tree.map(np.asarray, (meta_params.rule, meta_params.initial))
  toy.assert_close(found.final.params, by_hand(learned, initial, grads), rtol=1e-9)


@pytest.mark.parametrize("derivative", ["mixed", "reverse"])
def test_meta_gradient_by_finite_differences(derivative):
  """Eager once, compiled elsewhere; `tests/test_conformance.py` has it under vmap."""
  meta_params, task = moved(), toy.task()
  estimate = unrolled(toy.loop(RULE), derivative)
  compiled = toy.jit(estimate)
  value, gradient = compiled(meta_params, task, toy.key())
  toy.assert_slopes(lambda point: compiled(point, task, toy.key())[0][0], meta_params, gradient)
  if derivative == "mixed":
    toy.assert_close((value, gradient), estimate(meta_params, task, toy.key()), rtol=1e-9)
  assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient.rule["decay"]))


def test_the_generator_has_two_inputs_for_each_tensor():
  params = {"a": jnp.zeros((3, 4)), "b": (jnp.zeros(2), jnp.zeros(()))}
  shapes = jax.eval_shape(rules.alfa(0.1, 3).init, toy.key(), params)
  assert shapes["generator"]["output"]["kernel"].shape == (6, 6)
  assert {leaf.shape for leaf in jax.tree.leaves((shapes["learning_rate"], shapes["decay"]))} == {(3,)}


def test_bad_input():
  for bad in (0.0, -0.1, lambda step: 0.1):
    with pytest.raises(ValueError, match="learning_rate must be a positive number"):
      rules.alfa(bad)
  with pytest.raises(ValueError, match="own_steps must be an integer of at least 1; got 0"):
    rules.alfa(0.1, 0)
  with pytest.raises(ValueError, match="decay must be finite and at least 0; got -1"):
    rules.alfa(decay=-1)
  transform = RULE.transform(toy.meta_params(RULE).rule)
  with pytest.raises(ValueError, match="alfa needs the parameters, whose means it reads; got None"):
    transform.update(toy.initial(), transform.init(toy.initial()))
  with pytest.raises(ValueError, match="alfa takes real parameters"):
    RULE.init(toy.key(), {"w": jnp.zeros(2, complex)})
