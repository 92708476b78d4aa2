"""Contributions along a trajectory: Reptile, Leap, and their sum; and the meta-gradient in blocks."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import toy
from warpjax import linear_solve, rules
from warpjax.meta_gradients import along_trajectory, blockwise, implicit, leap, reptile, unrolled, warp
from warpjax.types import CarriedMetaGrad, Task

pytestmark = pytest.mark.usefixtures("strict")


def reference_points(meta_params, support, learning_rate=0.3, num_steps=3):
  loss = lambda params, step: toy.loss_fn(params, meta_params.shared, support(step))[0]
  return loss, toy.descent(loss, meta_params.initial, learning_rate, num_steps)


def test_reptile_is_initial_minus_final_and_nothing_else():
  meta_params, task = toy.meta_params(rules.meta_sgd(0.3)), toy.task()
  (value, aux), grads = toy.run(along_trajectory(toy.loop(rules.meta_sgd(0.3)), reptile()), meta_params, task)
  _, points = reference_points(meta_params, lambda step: task.support)
  toy.assert_close(grads.initial, optax.tree.sub(points[0], points[-1]))
  toy.assert_zero((grads.shared, grads.rule))
  toy.assert_close(value, toy.loss_fn(points[-1], meta_params.shared, task.query)[0])
  toy.assert_close(aux["mse"], value)


def test_weighted_steps_of_reptile_are_the_gradients_weighted_and_ones_are_reptile():
  """Under SGD each difference is the learning rate times a gradient, here taken by hand along the descent."""
  weights, meta_params, task = (0.5, -1.0, 3.0), toy.meta_params(), toy.task()
  loss, points = reference_points(meta_params, lambda step: task.support)
  by_hand = [jax.grad(loss)(point, step) for step, point in enumerate(points[:-1])]
  run = lambda weights: toy.run(along_trajectory(toy.loop(rules.sgd(0.3)), reptile(weights)), meta_params, task)
  (value, _), grads = run(weights)
  toy.assert_close(grads.initial, jax.tree.map(lambda *g: 0.3 * sum(map(jnp.multiply, weights, g)), *by_hand))
  toy.assert_zero((grads.shared, grads.rule))
  (whole_value, _), whole = run(None)
  toy.assert_close((value, run((1, 1, 1))[1]), (whole_value, whole))


def test_the_last_step_alone_is_first_order_maml_on_the_last_minibatch():
  """With as many steps less one, and the last minibatch as the query set; the derivative is by other code."""
  meta_params, task = toy.meta_params(), toy.task(num_examples=12)
  batches = jax.tree.map(lambda leaf: leaf.reshape(3, 4, *leaf.shape[1:]), task.support)
  pick = lambda key, support, step, params, shared: jax.tree.map(lambda leaf: leaf[step], support)
  inner = toy.loop(rules.sgd(0.3), 3, batch_fn=pick)
  last = jax.tree.map(lambda leaf: leaf[2], batches)
  _, tail = toy.run(along_trajectory(inner, reptile((0, 0, 1))), meta_params, Task(batches, task.query))
  _, fomaml = toy.run(unrolled(inner._replace(num_steps=2), "first_order"), meta_params, Task(batches, last))
  toy.assert_close(tail.initial, jax.tree.map(lambda g: 0.3 * g, fomaml.initial))


@pytest.mark.parametrize(
  ("weights", "message"),
  [((1.0, np.inf, 1.0), "finite numbers"), ((), "finite numbers"), ((1, 1), "3 inner steps; got 2")],
)
def test_bad_step_weights(weights, message):
  with pytest.raises(ValueError, match=message):
    along_trajectory(toy.loop(rules.sgd(0.3)), reptile(weights))


def test_one_step_of_reptile_is_the_learning_rate_times_the_gradient():
  meta_params, task = toy.meta_params(), toy.task()
  _, grads = toy.run(along_trajectory(toy.loop(rules.sgd(0.3), 1), reptile()), meta_params, task)
  gradient = jax.grad(toy.loss_fn, has_aux=True)(meta_params.initial, meta_params.shared, task.support)[0]
  toy.assert_close(grads.initial, jax.tree.map(lambda g: 0.3 * g, gradient))


def test_reptile_s_taylor_expansion():
  """Section 5.1 of arXiv 1803.02999: `sum_i g_i - alpha sum_i H_i sum_{j<i} g_j + O(alpha^2)`, minibatches fixed."""
  count, meta_params = 3, toy.meta_params()
  task = toy.task(num_examples=4 * count)
  batches = jax.tree.map(lambda leaf: leaf.reshape(count, 4, 2), task.support)
  batch = lambda index: jax.tree.map(lambda leaf: leaf[index], batches)
  flat, unravel = jax.flatten_util.ravel_pytree(meta_params.initial)
  loss = lambda vector, index: toy.loss_fn(unravel(vector), meta_params.shared, batch(index))[0]
  at = toy.jit(lambda i: (jax.grad(loss)(flat, i), jax.hessian(loss)(flat, i)))
  gradients, hessians = zip(*[map(np.asarray, at(i)) for i in range(count)], strict=True)
  second = sum(hessians[i] @ sum(gradients[:i]) for i in range(1, count))

  def residual(learning_rate):
    pick = lambda key, support, step, params, shared: jax.tree.map(lambda leaf: leaf[step], support)
    inner = toy.loop(rules.sgd(learning_rate), count, batch_fn=pick)
    grads = toy.run(along_trajectory(inner, reptile()), meta_params, Task(batches, task.query))[1].initial
    vector = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(grads)]) / learning_rate
    return np.linalg.norm(vector - sum(gradients) + learning_rate * second)

  np.testing.assert_allclose(np.log2(residual(2e-4) / residual(1e-4)), 2, atol=0.02)


def leap_reference(loss, points, norm=True, use_loss=True, stabilizer=True, all_segments=True):
  """The formula of PROTOCOLS: `-sum_k (dL_k grad L(theta_{k-1}) + theta_k - theta_{k-1}) / norm_k`, in NumPy."""
  unravel = jax.flatten_util.ravel_pytree(points[0])[1]
  total = 0.0
  for step, (before, after) in enumerate(itertools.pairwise(points)):
    if not all_segments and step == len(points) - 2:
      break
    moved, gradient = (
      np.asarray(jax.flatten_util.ravel_pytree(tree)[0])
      for tree in (optax.tree.sub(after, before), jax.grad(loss)(before, step))
    )
    change = float(loss(after, step + 1) - loss(before, step)) if use_loss else 0.0
    change = -change if stabilizer and change > 0 else change
    length = np.sqrt(moved @ moved + change**2) if norm else 1.0
    total = total - (change * gradient + moved) / length
  return unravel(jnp.asarray(total))


@pytest.mark.parametrize("options", [
  {},
  {"norm": False},
  {"use_loss": False},
  {"stabilizer": False},
  {"all_segments": False},
  {"norm": False, "use_loss": False, "stabilizer": False, "all_segments": False},
], ids=lambda options: "-".join(options) or "default")  # fmt: skip
def test_leap_against_the_formula(options):
  # A minibatch of its own for each step, and a learning rate at which the loss rises now and then.
  meta_params, learning_rate, num_steps = toy.meta_params(), 1.5, 4
  task = toy.task(num_examples=4 * (num_steps + 1))
  batches = jax.tree.map(lambda leaf: leaf.reshape(num_steps + 1, 4, 2), task.support)
  pick = lambda key, support, step, params, shared: jax.tree.map(lambda leaf: leaf[step], support)
  support = lambda step: pick(None, batches, step, None, None)
  loss, points = reference_points(meta_params, support, learning_rate, num_steps)
  changes = [loss(points[k + 1], k + 1) - loss(points[k], k) for k in range(num_steps)]
  assert min(changes) < 0 < max(changes), "the stabilizer would not be tested"

  inner = toy.loop(rules.sgd(learning_rate), num_steps, batch_fn=pick)
  contribution = leap(**{"loss" if name == "use_loss" else name: value for name, value in options.items()})
  _, grads = toy.jit(along_trajectory(inner, contribution))(meta_params, Task(batches, task.query), toy.key())
  toy.assert_close(grads.initial, leap_reference(loss, points, **options), rtol=1e-9)
  toy.assert_zero(grads.shared)


def test_leap_sees_the_proximal_term_as_part_of_the_loss():
  meta_params, task, prox = toy.meta_params(), toy.task(), 0.5

  def loss(params, step):
    pull = optax.tree.norm(optax.tree.sub(params, meta_params.initial), squared=True)
    return toy.loss_fn(params, meta_params.shared, task.support)[0] + prox / 2 * pull

  points = toy.descent(loss, meta_params.initial, 0.3, 3)
  _, grads = toy.run(along_trajectory(toy.loop(rules.sgd(0.3), prox=prox), leap()), meta_params, task)
  toy.assert_close(grads.initial, leap_reference(loss, points), rtol=1e-9)


def test_leap_at_a_stationary_point_is_zero():
  flat = lambda params, shared, batch: (0.0 * jnp.sum(params["w"]), {})
  _, grads = toy.run(along_trajectory(toy.loop(loss_fn=flat), leap()), toy.meta_params(), toy.task())
  toy.assert_zero(grads.initial)


def test_contributions_add_up():
  meta_params, task = toy.meta_params(), toy.task()
  inner = toy.loop(prox=0.5)
  parts = (leap(), reptile(), implicit(linear_solve.cg(3)), warp())
  (value, aux), total = toy.run(along_trajectory(inner, *parts), meta_params, task)
  singles = [toy.run(along_trajectory(inner, part), meta_params, task) for part in parts]
  toy.assert_close(total, jax.tree.map(lambda *leaves: sum(leaves), *[grads for _, grads in singles]))
  toy.assert_close(value, singles[0][0][0])
  assert set(aux) == {"mse", "implicit/residual", "implicit/iterations", "implicit/inner_gradient_norm"}


def test_a_contribution_of_your_own_is_a_fold():
  from warpjax.meta_gradients import Contribution
  from warpjax.meta_gradients.trajectory import zeros

  mean_point = Contribution(
    init=lambda problem: optax.tree.zeros_like(problem.meta_params.initial),
    step=lambda problem, total, seen: optax.tree.add(total, seen.next.params),
    finish=lambda problem, total, final: (zeros(problem, initial=total), {"mine": jnp.ones(())}),
  )
  meta_params, task = toy.meta_params(), toy.task()
  (_, aux), grads = toy.run(along_trajectory(toy.loop(rules.sgd(0.3)), mean_point), meta_params, task)
  _, points = reference_points(meta_params, lambda step: task.support)
  toy.assert_close(grads.initial, functools.reduce(optax.tree.add, points[1:]))
  assert float(aux["mine"]) == 1


def test_a_carried_optimizer_goes_on_where_the_last_task_left_it():
  """Reptile's released code never resets Adam's moments between tasks: the parameters jump back, the moments do not."""
  meta_params, rule = toy.meta_params(), rules.adam(0.05, b1=0.0)
  estimate = along_trajectory(toy.loop(rule, 2), reptile(), carry_optimizer=True)
  assert isinstance(estimate, CarriedMetaGrad)
  carry, optimizer = estimate.init(meta_params), rule.transform(())
  state = optimizer.init(meta_params.initial)
  for seed in (11, 12, 13):
    task = toy.task(seed)
    (_, grads), carry = estimate.grad(meta_params, task, toy.key(), carry)
    params = meta_params.initial
    for _ in range(2):
      gradient = jax.grad(toy.loss_fn, has_aux=True)(params, meta_params.shared, task.support)[0]
      updates, state = optimizer.update(gradient, state, params)
      params = optax.apply_updates(params, updates)
    toy.assert_close(grads.initial, optax.tree.sub(meta_params.initial, params))
    toy.assert_close(carry, state)
  fresh = toy.run(along_trajectory(toy.loop(rule, 2), reptile()), meta_params, task)[1]
  assert not np.allclose(fresh.initial["w"], grads.initial["w"], rtol=1e-3)


def test_blockwise_takes_each_block_from_its_own_estimator():
  rule = rules.meta_sgd(0.2)
  meta_params, task, inner = toy.meta_params(rule), toy.task(), toy.loop(rules.meta_sgd(0.2))
  full, first = unrolled(inner), unrolled(inner, "first_order")
  along = along_trajectory(inner, warp())
  run = lambda estimate: toy.run(estimate, meta_params, task)
  result, grads = run(blockwise(initial=full, shared=along, rule=first))
  whole = run(full)
  toy.assert_close(result, whole[0])
  toy.assert_close(grads.initial, whole[1].initial)
  toy.assert_close(grads.shared, run(along)[1].shared)
  toy.assert_close(grads.rule, run(first)[1].rule)
  toy.assert_close(run(blockwise(initial=full)), whole)


def test_blockwise_runs_each_estimator_once():
  calls = []

  def counting(*args):
    calls.append(1)
    return unrolled(toy.loop())(*args)

  toy.run(blockwise(initial=counting, shared=counting), toy.meta_params(), toy.task())
  assert len(calls) == 1


@pytest.mark.parametrize("contribution", [reptile(), leap(), warp()], ids=["reptile", "leap", "warp"])
def test_a_differentiated_task_raises_instead_of_a_silent_zero(contribution):
  meta_params, task, estimate = toy.meta_params(), toy.task(), along_trajectory(toy.loop(), contribution)

  def norm(scale):
    return optax.tree.norm(estimate(meta_params, jax.tree.map(lambda leaf: scale * leaf, task), toy.key())[1])

  with pytest.raises(ValueError, match="the task is differentiated"):
    jax.grad(norm)(1.0)
  jax.eval_shape(jax.vmap(norm), jnp.ones(2))


def test_bad_input():
  inner = toy.loop()
  refusals = {
    "takes one Contribution or more": lambda: along_trajectory(inner),
    "takes one Contribution or more, such as": lambda: along_trajectory(inner, reptile),
    "num_steps must be an integer of at least 1; got 0": lambda: along_trajectory(toy.loop(num_steps=0), reptile()),
    "implicit needs InnerLoop.prox > 0": lambda: along_trajectory(inner, implicit(linear_solve.cg(3))),
    "initial must be a MetaGradFn; got CarriedMetaGrad": lambda: blockwise(
      initial=along_trajectory(inner, reptile(), carry_optimizer=True)
    ),
    "shared must be a MetaGradFn; got Contribution": lambda: blockwise(initial=unrolled(inner), shared=warp()),
  }
  for message, call in refusals.items():
    with pytest.raises(ValueError, match=message):
      call()
