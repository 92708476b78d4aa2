"""Memory below one carry a step: equal gradients, the states that a plan names, programs of one size."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest

import warpjax as wj
from tests import toy
from tests.meta_gradients.test_mixed_mode import EXAMPLE, NETWORK, PARAMETER_BYTES, network_loss
from warpjax import memory, rules
from warpjax.meta_gradients import along_trajectory, blockwise, truncated_unroll, unrolled, warp
from warpjax.training import task_batch

RULES = {
  "sgd": rules.sgd(0.2),
  "momentum": rules.sgd(0.2, 0.9),
  "adam": rules.adam(0.05),
  "learned": rules.l2l_lstm((3,), scale=0.1),
}
BELOW = ("nested", "treeverse")
STEPS = 7  # no whole number of segments


def of_tasks(estimate, rule, chunk=3):
  """The mean meta-gradient of three vmapped tasks."""
  tasks, keys = toy.tasks(3), jax.random.split(toy.key(), 3)
  run = lambda point: task_batch.mean_over_tasks(estimate, point, tasks, keys, (), chunk)[:2]
  return toy.jit(run)(toy.meta_params(rule))


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("derivative", ["mixed", pytest.param("reverse", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
  "name", ["adam", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "momentum", "learned"))]
)
def test_gradients_of_vmapped_tasks_equal_those_with_every_residual(name, derivative):
  rule = RULES[name]
  make = partial(unrolled, toy.loop(rule, STEPS, batch_fn=toy.pair), derivative)
  reference = of_tasks(make(memory="save_all"), rule)
  for policy in BELOW:
    toy.assert_close(of_tasks(make(memory=policy, snapshots=3), rule), reference, rtol=1e-11)
  toy.assert_close(of_tasks(make(memory="offload"), rule, 2), reference, rtol=1e-11)


RULE = rules.meta_sgd((0.1, 0.3))
WEIGHTS = (0.1, 0.0, 0.2, 0.1, 0.3, 0.1, 0.2)
COMPOSED = {
  "step_weights": {"step_weights": WEIGHTS, "start_weight": 0.4},
  "online": {"online": True},
  "truncate": {"truncate": 4},
  "first_order": {"derivative": "first_order", "online": WEIGHTS},
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(COMPOSED)[1:]]


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("name", ["step_weights", *SLOW])
def test_composed_with_the_other_arguments(name):
  make = partial(unrolled, toy.loop(RULE, STEPS, batch_fn=toy.pair, prox=0.3), **COMPOSED[name])
  run = lambda policy: toy.run(make(memory=policy), toy.meta_params(RULE), toy.task())
  expected = run("save_all")
  for policy in BELOW:
    toy.assert_close(run(policy), expected, rtol=1e-11)


@pytest.mark.usefixtures("strict")
def test_a_segment_with_its_carried_optimizer_state():
  rule = RULES["adam"]
  meta_params = toy.meta_params(rule)

  def twice(policy):
    """Two segments: the second starts from the first one's point and moments, at a step that is traced."""
    estimate = truncated_unroll(toy.loop(rule, 10, batch_fn=toy.pair), 5, "mixed", memory=policy)
    once = lambda carry: estimate.grad(meta_params, toy.task(), toy.key(), carry)

    def both():
      first = once(estimate.init(meta_params))
      return first, once(first[1])

    return toy.jit(both)()

  expected = twice("save_all")
  for policy in BELOW:
    toy.assert_close(twice(policy), expected, rtol=1e-11)


@pytest.mark.usefixtures("strict")
def test_weights_by_meta_step():
  make = partial(unrolled, toy.loop(RULE, STEPS), step_weights=lambda count: jnp.asarray(WEIGHTS) * (count + 1))
  run = lambda policy: toy.jit(make(memory=policy).grad)(toy.meta_params(RULE), toy.task(), toy.key(), jnp.int32(2))
  toy.assert_close(run("treeverse"), run("save_all"), rtol=1e-11)


@pytest.mark.usefixtures("strict")
def test_guests_are_folded_along_an_adaptation_whose_gradients_are_not_kept():
  inner = toy.loop(RULE, STEPS)
  make = lambda policy: blockwise(initial=unrolled(inner, memory=policy), shared=along_trajectory(inner, warp()))
  run = lambda policy: toy.run(make(policy), toy.meta_params(RULE), toy.task())
  toy.assert_close(run("nested"), run("auto"), rtol=1e-11)


@pytest.mark.usefixtures("strict")
def test_a_nested_meta_gradient_can_be_differentiated():
  meta_params, along = toy.meta_params(), toy.direction(toy.meta_params())

  def projected(point, policy):
    grads = unrolled(toy.loop(num_steps=4), memory=policy)(point, toy.task(), toy.key())[1]
    return sum(jnp.vdot(*leaves) for leaves in zip(jax.tree.leaves(grads), jax.tree.leaves(along), strict=True))

  of = lambda policy: toy.jit(jax.grad(lambda point: projected(point, policy)))(meta_params)
  toy.assert_close(of("nested"), of("auto"), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("strict")
def test_forward_mode_outside():
  estimate = lambda policy: lambda point: unrolled(toy.loop(num_steps=4), memory=policy)(point, toy.task(), toy.key())
  meta_params, along = toy.meta_params(), jax.tree.map(jnp.asarray, toy.direction(toy.meta_params()))
  push = lambda policy: toy.jit(lambda point, by: jax.jvp(estimate(policy), (point,), (by,)))(meta_params, along)
  toy.assert_close(push("nested"), push("save_all"))


# What XLA plans, in float32.


def lowered(num_steps, policy, rule=None, snapshots=None, jit=jax.jit):
  inner = wj.InnerLoop(network_loss, rule or rules.sgd(0.1), num_steps)
  return jit(unrolled(inner, memory=policy, snapshots=snapshots)).lower(NETWORK, EXAMPLE, toy.key())


def temporaries(*args, **kwargs):
  return lowered(*args, **kwargs).compile().memory_analysis().temp_size_in_bytes


def test_far_less_memory_than_a_carry_a_step():
  whole = temporaries(1024, "auto")
  assert temporaries(1024, "nested") < whole / 8 and temporaries(1024, "treeverse") < whole / 20


@pytest.mark.slow
@pytest.mark.parametrize("policy", BELOW)
def test_the_states_stored_are_those_of_the_plan(policy):
  """Adam's carry is three copies of the parameters, and a segment keeps a gradient more for each of its steps."""
  of = partial(temporaries, 1024, policy, rules.adam(0.1), jit=toy.optimized)
  slope = (of(snapshots=64) - of(snapshots=16)) / PARAMETER_BYTES
  expected = 3 * (64 - 16) + (4 * (16 - 64) if policy == "nested" else 0)
  assert abs(slope - expected) < 3


def test_a_program_does_not_grow_with_the_steps():
  size = lambda *args: lowered(*args).as_text().count("\n")
  for policy in BELOW:
    assert size(1024, policy) == size(64, policy)
    assert size(1024, policy) < 2 * size(1024, "auto")


def test_the_boundaries_of_segments_go_to_the_host_and_back():
  """As a program for a GPU says, of every leaf of the carry: Adam's parameters, moments and count."""
  rule = rules.adam(0.05)
  traced = jax.jit(unrolled(toy.loop(rule, STEPS), memory="offload")).trace(toy.meta_params(), toy.task(), toy.key())
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  leaves = len(jax.tree.leaves((toy.initial(), rule.transform(()).init(toy.initial()))))
  assert text.count("annotate_device_placement") == 2 * leaves and text.count("pinned_host") == leaves


def test_plans():
  for num_steps in (1, 2, 3, 7, 16, 97, 1000, 1024):
    for snapshots in (None, 1, 5, 2000):
      for policy in ("nested", "offload"):
        kept = memory.plan(policy, num_steps, snapshots)
        rest = num_steps - kept.boundaries * kept.segment
        assert 0 <= rest < kept.segment and kept.boundaries >= 1
        assert snapshots is None or kept.boundaries <= snapshots
      assert memory.plan("treeverse", num_steps, snapshots).boundaries <= min(snapshots or num_steps, num_steps)
  assert memory.plan("nested", 1000) == (40, 25)  # a divisor, though 31 segments of 32 would keep two states less
  assert memory.plan("nested", 97) == (10, 9)  # a prime has none


def test_bad_input():
  inner = toy.loop()
  for make in (unrolled, lambda inner, **kwargs: truncated_unroll(inner, 3, **kwargs)):
    with pytest.raises(ValueError, match="memory must be one of 'auto', .*'treeverse', 'offload'; got 'binomial'"):
      make(inner, memory="binomial")
    with pytest.raises(ValueError, match="snapshots must be None unless memory is 'nested'.*; got 4"):
      make(inner, snapshots=4)
    with pytest.raises(ValueError, match="snapshots must be None or an integer of at least 1; got 0"):
      make(inner, memory="nested", snapshots=0)
