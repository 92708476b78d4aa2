"""FLOPs against counts by hand, bytes against shapes, and the search for the largest number of steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
import pytest

from tests import toy
from warpjax import training
from warpjax.diagnostics import cost
from warpjax.linear_solve import cg
from warpjax.memory import plan
from warpjax.meta_gradients import along_trajectory, implicit, unrolled


def shape(*extents):
  return jax.ShapeDtypeStruct(extents, jnp.float32)


def product(a, b):
  return a @ b


@pytest.mark.parametrize(
  ("function", "arguments", "expected"),
  [
    (product, ((3, 4), (4, 5)), 2 * 3 * 4 * 5),
    (jax.vmap(product), ((7, 3, 4), (7, 4, 5)), 7 * 2 * 3 * 4 * 5),
    # A gradient in both arguments is two more products of that size, and the value is not needed for it.
    (jax.value_and_grad(lambda a, b: jnp.sum(jnp.sin(a @ b)), (0, 1)), ((3, 4), (4, 5)), 3 * 2 * 3 * 4 * 5),
    (lambda a: jax.lax.scan(lambda c, _: (jax.jit(product)(a, c), None), a, None, length=6)[0], ((4, 4),), 6 * 128),
    (jax.checkpoint(product), ((3, 4), (4, 5)), 120),
    (lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a), ((4, 4),), 2 * 128),
    (
      lambda x, w: jax.lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
      ((2, 8, 8, 3), (3, 3, 3, 5)),
      2 * (2 * 4 * 4 * 5) * 27,
    ),
    (
      lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
      ),
      ((2, 8, 8, 6), (3, 3, 3, 4)),
      2 * (2 * 8 * 8 * 4) * 27,
    ),
  ],
)
def test_flops_are_those_counted_by_hand(function, arguments, expected):
  assert cost.flops(function, *(shape(*extents) for extents in arguments)) == expected


def step_cost(meta_grad, num_steps):
  optimizer, params = optax.sgd(0.1), toy.meta_params()
  state = training.init(toy.key(), toy.loop().rule, params.initial, params.shared, optimizer)
  return cost.compiled_cost(toy.jit(training.meta_step(meta_grad(num_steps), optimizer)), state, toy.tasks(2))


def test_the_cost_of_a_meta_step():
  """Bytes grow with the steps by the stored parameters and gradients, and by nothing for the implicit gradient."""
  costs = [step_cost(lambda n: unrolled(toy.loop(num_steps=n)), count) for count in (16, 32, 64)]
  tasks_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(toy.tasks(2)))
  assert all(one.argument_bytes > tasks_bytes and one.peak_bytes > one.temp_bytes > 0 for one in costs)
  growth = (costs[2].temp_bytes - costs[1].temp_bytes) / 32
  params_bytes = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(toy.initial()))  # of the two tasks side by side
  assert params_bytes <= growth <= 2.05 * params_bytes + 2 * 4
  assert costs[2].flops - costs[1].flops == pytest.approx(2 * (costs[1].flops - costs[0].flops))
  assert "GFLOP, peak" in str(costs[0])
  solved = [
    step_cost(lambda n: along_trajectory(toy.loop(num_steps=n, prox=0.5), implicit(cg(2))), count).temp_bytes
    for count in (16, 256)
  ]
  assert solved[0] == solved[1]


@pytest.mark.parametrize("budget", [99, 100, 1234, 5000, 10_000_000])
def test_the_largest_number_of_steps(budget):
  sizes = lambda steps: 100 + 7 * steps + (steps > 20) * 13 + steps // 9
  asked = []

  def peak(steps):
    asked.append(steps)
    return sizes(steps)

  found = cost.largest_num_steps(peak, budget, at_most=500)
  assert found == max((steps for steps in range(1, 501) if sizes(steps) <= budget), default=0)
  assert len(asked) <= 8
  with pytest.raises(ValueError, match="budget_bytes must be above 0; got 0"):
    cost.largest_num_steps(peak, 0)


@pytest.mark.parametrize("memory", ["recompute", "nested", "treeverse", "offload"])
def test_growth_is_read_off_small_programs(memory):
  """Exact for bytes that are those of a plan."""
  asked = []

  def size(num_steps, snapshots=None):
    kept = plan(memory, num_steps, snapshots)
    asked.append(num_steps)
    return 700 + 12 * kept.boundaries + 31 * kept.segment

  line = cost.growth(size, memory)
  assert max(asked) <= 64 and len(asked) <= 3
  for num_steps in (100, 1000, 4096):
    assert line.bytes_of(num_steps) == size(num_steps)
    assert line.bytes_of(num_steps, 7) == size(num_steps, 7) or memory == "recompute"
