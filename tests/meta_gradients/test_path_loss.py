"""Losses along the whole adaptation: MAML++'s multi-step loss, and truncated unrolls."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules
from warpjax.meta_gradients import annealed_step_weights, truncated_unroll, unrolled

pytestmark = pytest.mark.usefixtures("strict")

RULE, WEIGHTS = rules.meta_sgd((0.1, 0.3)), (0.2, 0.3, 0.5)


def run(estimate, meta_params=None):
  return toy.run(estimate, toy.meta_params(RULE) if meta_params is None else meta_params, toy.task())


def carried(estimate, carry=None):
  """Each call from the carry given, or a fresh one."""
  meta_params = toy.meta_params(RULE)
  call = toy.jit(lambda m, t, c: estimate.grad(m, t, toy.key(), c))
  return call(meta_params, toy.task(), estimate.init(meta_params) if carry is None else carry)


def test_a_weight_on_the_last_step_alone_is_the_plain_loss():
  toy.assert_close(run(unrolled(toy.loop(RULE), step_weights=(0.0, 0.0, 1.0))), run(unrolled(toy.loop(RULE))))


@pytest.mark.parametrize("derivative", ["mixed", "first_order"])
def test_the_gradient_is_the_weighted_sum_of_those_of_shorter_loops(derivative):
  (value, aux), grads = run(unrolled(toy.loop(RULE), derivative, step_weights=WEIGHTS))
  shorter = [run(unrolled(toy.loop(RULE, k), derivative)) for k in (1, 2, 3)]
  expected = jax.tree.map(lambda *g: sum(w * x for w, x in zip(WEIGHTS, g, strict=True)), *[r[1] for r in shorter])
  toy.assert_close(((value, aux), grads), (shorter[-1][0], expected))


def test_truncation_of_a_multi_step_loss():
  of = lambda *args, **kwargs: run(unrolled(toy.loop(RULE), *args, step_weights=WEIGHTS, **kwargs))
  toy.assert_close(of(truncate=0), of("first_order"))


def test_annealed_weights_count_meta_steps():
  weights = annealed_step_weights(3, 4, steps_per_epoch=2)
  estimate = unrolled(toy.loop(RULE), step_weights=weights)
  result, count = carried(estimate, jnp.asarray(5, jnp.int32))
  assert count == 6 and carried(estimate)[1] == 1
  toy.assert_close(result, run(unrolled(toy.loop(RULE), step_weights=tuple(map(float, weights(5))))))


def test_annealed_weights_are_the_released_ones():
  """From equal, less by 1/K/epochs an epoch and never below 0.03/K; the last takes the rest, then it alone counts."""
  num_steps, num_epochs = 5, 15
  weights = annealed_step_weights(num_steps, num_epochs, steps_per_epoch=500)
  for epoch in (0, 1, 7, 14, 15, 40):
    early = max(1 / num_steps - epoch / num_steps / num_epochs, 0.03 / num_steps) if epoch < num_epochs else 0.0
    expected = [*[early] * (num_steps - 1), 1 - (num_steps - 1) * early]
    for meta_step in (500 * epoch, 500 * epoch + 499):
      np.testing.assert_allclose(weights(meta_step), expected, rtol=1e-12)


def test_a_segment_of_the_whole_adaptation_is_the_mean_of_its_losses():
  result, segment = carried(truncated_unroll(toy.loop(RULE), 3, "mixed"))
  toy.assert_close(result, run(unrolled(toy.loop(RULE), step_weights=(1 / 3,) * 3)))
  assert segment.number == 0


def test_segments_go_on_where_the_last_one_ended_and_then_start_afresh():
  inner, meta_params = toy.loop(RULE, 4), toy.meta_params(RULE)
  estimate = truncated_unroll(inner, 2, "mixed")
  first, middle = carried(estimate)
  second, end = carried(estimate, middle)
  again, _ = carried(estimate, end)
  toy.assert_close(first, again)
  assert (middle.number, end.number) == (2, 0)

  adapted = lambda n: lambda m, t: wj.adapt(inner, m, t, toy.key(), num_steps=n).final.params
  plain = lambda n: toy.jit(adapted(n))(meta_params, toy.task())
  toy.assert_close((middle.state.params, end.state.params), (plain(2), plain(4)))
  half = unrolled(toy.loop(RULE, 2), step_weights=(0.5, 0.5))
  toy.assert_close(first, run(half))
  (value, aux), grads = run(half, meta_params._replace(initial=middle.state.params))
  toy.assert_close((second[0], second[1].shared, second[1].rule), ((value, aux), grads.shared, grads.rule))
  toy.assert_zero(second[1].initial)  # a segment starts at a constant


def test_bad_input():
  inner = toy.loop(RULE)
  for make, message in (
    (lambda: unrolled(inner, step_weights=(0.5, 0.5)), r"step_weights must be 3 numbers.*got shape \(2,\)"),
    (lambda: unrolled(inner, step_weights=annealed_step_weights(4, 2)), r"step_weights must be 3 numbers.*\(4,\)"),
    (lambda: annealed_step_weights(3, 0), "num_epochs must be an integer of at least 1"),
    (lambda: truncated_unroll(inner, 2), "length must divide the inner loop's num_steps, 3; got 2"),
    (lambda: truncated_unroll(inner, 0), "length must be an integer of at least 1; got 0"),
    (lambda: truncated_unroll(inner, 3, "forward"), "derivative must be one of"),
    (lambda: truncated_unroll(toy.loop(rules.newton_cg()), 1), "truncated_unroll cannot differentiate.*'newton_cg'"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
