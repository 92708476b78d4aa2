"""The online objective: the inner losses before each step, at no further forward pass; queries that know the step."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.diagnostics import cost
from warpjax.meta_gradients import along_trajectory, blockwise, truncated_unroll, unrolled, warp

pytestmark = pytest.mark.usefixtures("strict")

RULE, WEIGHTS = rules.meta_sgd((0.1, 0.3)), (0.5, 0.2, 0.3)
LOOP = partial(toy.loop, RULE, batch_fn=toy.pair)
PLAIN = rules.sgd(0.2)


def run(estimate, meta_params=None):
  return toy.run(estimate, toy.meta_params(RULE) if meta_params is None else meta_params, toy.task())


def by_hand(meta_params, weights, learning_rate=0.2, hold=lambda grads: grads):
  """`sum_k w_k L(theta_k; batch_k)` in a Python loop, and the losses."""
  params, losses = meta_params.initial, []
  for index in range(len(weights)):
    batch = toy.pair(toy.key(), toy.task().support, index, (), ())
    loss = lambda params, batch=batch: toy.loss_fn(params, meta_params.shared, batch)[0]
    value, grads = jax.value_and_grad(loss)(params)
    losses.append(value)
    params = jax.tree.map(lambda p, g: p - learning_rate * g, params, hold(grads))
  return sum(w * loss for w, loss in zip(weights, losses, strict=True)), losses


@pytest.mark.parametrize(
  ("derivative", "weights"), [("mixed", WEIGHTS), ("reverse", True), ("first_order", WEIGHTS)], ids=str
)
def test_the_sum_written_by_hand(derivative, weights):
  meta_params, inner = toy.meta_params(), toy.loop(PLAIN, batch_fn=toy.pair)
  hold = jax.lax.stop_gradient if derivative == "first_order" else lambda grads: grads
  numbers = (1 / 3,) * 3 if weights is True else weights
  objective = toy.jit(jax.value_and_grad(lambda m: by_hand(m, numbers, hold=hold), has_aux=True))
  (value, losses), grads = objective(meta_params)
  result = run(unrolled(inner, derivative, online=weights), meta_params)
  toy.assert_close(result, ((value, {"online/last": losses[-1]}), grads))


def test_finite_differences_of_every_block():
  meta_params, estimate = toy.meta_params(RULE), toy.jit(unrolled(LOOP(prox=0.3), online=WEIGHTS))
  (_, _), grads = estimate(meta_params, toy.task(), toy.key())
  toy.assert_slopes(lambda point: estimate(point, toy.task(), toy.key())[0][0], meta_params, grads)


def test_no_forward_pass_beyond_the_inner_loop_s():
  """First order: one value and gradient a step, and nothing else. Mixed: less than with the query loss of the end."""
  meta_params, inner, arguments = toy.meta_params(RULE), LOOP(), (toy.meta_params(RULE), toy.task(), toy.key())
  batch = toy.pair(toy.key(), toy.task().support, 0, (), ())
  both = jax.value_and_grad(toy.loss_fn, argnums=(0, 1), has_aux=True)
  step = cost.flops(both, meta_params.initial, meta_params.shared, batch)
  assert cost.flops(unrolled(inner, "first_order", online=True), *arguments) == 3 * step
  query = cost.flops(both, meta_params.initial, meta_params.shared, toy.task().query)
  plain, online = (cost.flops(unrolled(inner, **kwargs), *arguments) for kwargs in ({}, {"online": True}))
  assert online == plain - query


def test_truncation_and_guests():
  of = lambda *args, **kwargs: run(unrolled(LOOP(), *args, online=WEIGHTS, **kwargs))
  toy.assert_close(of(truncate=0), of("first_order"))
  toy.assert_close(of(truncate=3), of())
  inner = LOOP()
  together = run(blockwise(initial=unrolled(inner, online=True), shared=along_trajectory(inner, warp())))
  alone = run(unrolled(inner, online=True))
  toy.assert_close((together[0][0], together[1].initial), (alone[0][0], alone[1].initial))


@pytest.mark.parametrize("segment", [False, True], ids=["unrolled", "segment"])
def test_first_order_keeps_one_gradient_of_what_is_shared(segment):
  """And not one for each of 64 steps."""
  loss = lambda params, shared, batch: (jnp.mean((batch @ jnp.tanh(shared) @ params) ** 2), {})
  inner, size = wj.InnerLoop(loss, PLAIN, 64), 128
  meta_params, task = wj.MetaParams(jnp.ones(size), jnp.ones((size, size))), wj.Task(*2 * [jnp.ones((2, size))])
  if segment:
    estimate = truncated_unroll(inner, 64, "first_order", online=True)
    estimate, carry = estimate.grad, (estimate.init(meta_params),)
  else:
    estimate, carry = unrolled(inner, "first_order", online=True), ()
  used = cost.compiled_cost(estimate, meta_params, task, toy.key(), *carry).temp_bytes
  assert used < 8 * meta_params.shared.nbytes


@pytest.mark.parametrize("derivative", ["mixed", "first_order"])
def test_a_segment_of_the_whole_adaptation_is_the_online_mean(derivative):
  estimate, meta_params = truncated_unroll(LOOP(), 3, derivative, online=True), toy.meta_params(RULE)
  grad = lambda m, t, key: estimate.grad(m, t, key, estimate.init(m))[0]
  toy.assert_close(run(grad), run(unrolled(LOOP(), derivative, online=True), meta_params))


def test_the_weight_of_the_start_is_added():
  meta_params, task = toy.meta_params(RULE), toy.task()
  at_start = toy.jit(jax.grad(lambda m: toy.loss_fn(m.initial, m.shared, task.query)[0]))(meta_params)
  for kwargs in ({}, {"step_weights": (0.2, 0.3, 0.5)}):
    value, grads = run(unrolled(LOOP(), **kwargs))
    expected = jax.tree.map(lambda g, s: g + 0.7 * s, grads, at_start)
    toy.assert_close(run(unrolled(LOOP(), start_weight=0.7, **kwargs)), (value, expected))


def support_at(key, task, params, shared, step):
  """A query that knows its step: the batch of that inner step."""
  return toy.pair(toy.key(), task.support, step, params, shared)


def test_query_losses_of_the_inner_batches_are_the_online_objective():
  inner = LOOP(query_batch_fn=support_at)
  first, *others = WEIGHTS
  _, grads = run(unrolled(inner, start_weight=first, step_weights=(*others, 0.0)))
  toy.assert_close(grads, run(unrolled(LOOP(), online=WEIGHTS))[1])


def test_a_query_batch_function_takes_the_step_if_its_fifth_argument_is_one():
  seen = []

  def four(key, task, params, shared):
    return task.query

  def size(key, task, params, shared, size=2):  # not a step
    assert size == 2
    return task.query

  def named(key, task, params, shared, step=0):
    seen.append(step)
    return task.query

  def required(key, task, params, shared, k):
    seen.append(k)
    return task.query

  expected = run(unrolled(LOOP()))
  for query in (four, size, lambda *args: four(*args), named, required, partial(required), jax.jit(named)):
    toy.assert_close(run(unrolled(LOOP(query_batch_fn=query))), expected)
  assert {step for step in seen if isinstance(step, int)} == {3}
  with pytest.raises(ValueError, match=r"query_batch_fn must be a function \(key, task, params, shared, step\); got"):
    unrolled(LOOP(query_batch_fn=lambda key, task, params, shared, step, more: task.query))


def test_wrappers_pass_the_step_on():
  images = lambda key, task, params, shared, step: (jnp.full((1, 2, 2, 1), step), jnp.zeros(1, int))
  for wrapped in (wj.tasks.augment.augmented_query(images, lambda key, x: x), images):
    x, _ = wj.problem.with_step(wrapped)(toy.key(), toy.task(), (), (), 5)
    np.testing.assert_array_equal(x, np.full((1, 2, 2, 1), 5))
  (x, _), _ = wj.tasks.augment.keyed_query(images)(toy.key(), toy.task(), (), (), 5)
  np.testing.assert_array_equal(x, np.full((1, 2, 2, 1), 5))


def test_bad_input():
  inner = LOOP()
  for make, message in (
    (lambda: unrolled(inner, online=(0.5, 0.5)), r"online must be True, False or 3 weights, .*got \(0.5, 0.5\)"),
    (lambda: unrolled(inner, online=True, start_weight=1.0), "online must be False with start_weight"),
    (lambda: unrolled(inner, online=True, step_weights=WEIGHTS), "online must be False with step_weights"),
    (lambda: unrolled(inner, start_weight=(1.0,)), "start_weight must be a number"),
    (lambda: truncated_unroll(inner, 3, online=WEIGHTS), "online must be one of True, False; got"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
