"""What the released codes do where the papers leave it open, against loops in NumPy that share no code with it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import evaluation, rules, training
from warpjax.meta_gradients import along_trajectory, leap, reptile
from warpjax.training import replay
from warpjax.training.optimizers import per_block
from warpjax.types import MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")

B1, B2, EPS, RATE, OUTER = 0.0, 0.999, 1e-8, 0.05, 0.5
CURVATURES = np.array([1.0, 3.0])


def loss_fn(w, shared, batch):
  return 0.5 * jnp.sum(jnp.asarray(CURVATURES) * (w - batch) ** 2), {}


class Adam:
  """TensorFlow's optimizer: its moments and powers of the decays are variables that nothing resets."""

  def __init__(self):
    self.m, self.v, self.steps = np.zeros(2), np.zeros(2), 0

  def step(self, w, gradient):
    self.steps += 1
    self.m, self.v = B1 * self.m + (1 - B1) * gradient, B2 * self.v + (1 - B2) * gradient**2
    m_hat, v_hat = self.m / (1 - B1**self.steps), self.v / (1 - B2**self.steps)
    return w - RATE * m_hat / (np.sqrt(v_hat) + EPS)


def serial_reptile(start, targets, num_steps):
  """Reptile's released loop: one optimizer, every task from the same parameters, their mean displacement added."""
  adam, w = Adam(), start
  for meta_batch in targets:
    ends = []
    for target in meta_batch:
      task = w
      for _ in range(num_steps):
        task = adam.step(task, CURVATURES * (task - target))
      ends.append(task)
    w = w + OUTER * (np.mean(ends, axis=0) - w)
  return w, adam


def run(carry_optimizer, targets, num_steps, task_chunk=None):
  inner = wj.InnerLoop(loss_fn, rules.adam(RATE, B1, B2, EPS, eps_root=0.0), num_steps)
  meta_grad, outer = along_trajectory(inner, reptile(), carry_optimizer=carry_optimizer), optax.sgd(OUTER)
  settings = {"meta_grad": meta_grad, "tasks_per_step": targets.shape[1]}
  state = training.init(toy.key(), inner.rule, jnp.array([0.3, -0.2]), (), outer, **settings)
  step = toy.jit(training.meta_step(meta_grad, outer, task_chunk=task_chunk))
  for meta_batch in targets:
    state, metrics = step(state, Task(jnp.asarray(meta_batch), jnp.asarray(meta_batch)))
  return inner, state, metrics


TARGETS = np.random.default_rng(0).standard_normal((3, 4, 2)) * np.geomspace(0.1, 3.0, 4)[None, :, None]


@pytest.mark.parametrize("task_chunk", [None, 2])
def test_reptile_s_one_chain_of_moments(task_chunk):
  expected, adam = serial_reptile(np.array([0.3, -0.2]), TARGETS, 5)
  _, state, metrics = run("in_turn", TARGETS, 5, task_chunk)
  np.testing.assert_allclose(state.meta_params.initial, expected, rtol=1e-12)
  assert int(optax.tree.get(state.carry, "count")[0]) == adam.steps == 3 * 4 * 5
  np.testing.assert_allclose(optax.tree.get(state.carry, "nu")[0], adam.v, rtol=1e-12)
  assert bool(metrics["finite"])


def test_slots_are_another_algorithm():
  """At the first meta-step already: all slots begin at moments of zero, in the chain the first task alone does."""
  expected, _ = serial_reptile(np.array([0.3, -0.2]), TARGETS[:1], 5)
  moved = [run(carry, TARGETS[:1], 5)[1].meta_params.initial - np.array([0.3, -0.2]) for carry in (True, "in_turn")]
  np.testing.assert_allclose(moved[1], expected - np.array([0.3, -0.2]), rtol=1e-12)
  assert np.linalg.norm(moved[0] - moved[1]) > 0.1 * np.linalg.norm(moved[1])


def test_test_tasks_go_on_from_the_chain():
  inner, state, _ = run("in_turn", TARGETS, 5)
  expected, adam = serial_reptile(np.array([0.3, -0.2]), TARGETS, 5)
  going_on, start = evaluation.continued(inner, state.meta_params, state.carry)
  target = np.array([1.0, -1.0])
  for _ in range(5):
    expected = adam.step(expected, CURVATURES * (expected - target))
  final = wj.adapt(going_on, start, Task(jnp.asarray(target), jnp.asarray(target)), toy.key()).final
  np.testing.assert_allclose(final.params, expected, rtol=1e-12)


def test_many_meta_steps_and_a_step_that_is_left_out():
  """The one slot is a carry like any other: scanned over, and kept where an update is skipped."""
  inner = wj.InnerLoop(loss_fn, rules.adam(RATE), 2)
  meta_grad, outer = along_trajectory(inner, reptile(), carry_optimizer="in_turn"), optax.sgd(OUTER)
  state = training.init(toy.key(), inner.rule, jnp.zeros(2), (), outer, meta_grad=meta_grad, tasks_per_step=3)
  step = training.skip_nonfinite(training.meta_step(meta_grad, outer))
  sampler = lambda key: Task(*2 * [jax.random.normal(key, 2)])
  after, metrics = toy.jit(training.many_steps(step, sampler, tasks_per_step=3, num_steps=4))(state)
  assert optax.tree.get(after.carry, "count").tolist() == [4 * 3 * 2] and not np.any(metrics["skipped"])
  bad, metrics = toy.jit(step)(after, Task(*2 * [jnp.full((3, 2), jnp.nan)]))
  assert int(metrics["skipped"]) == 1
  np.testing.assert_array_equal(optax.tree.get(bad.carry, "nu"), optax.tree.get(after.carry, "nu"))


def test_what_cannot_be_taken_in_turn():
  inner = toy.loop(rules.adam(0.1), 2)
  meta_grad, outer = along_trajectory(inner, reptile(), carry_optimizer="in_turn"), optax.sgd(0.5)
  with pytest.raises(ValueError, match="axis_name must be None for a meta-gradient whose tasks run in sequence"):
    training.meta_step(meta_grad, outer, axis_name="devices")
  with pytest.raises(ValueError, match="carry_optimizer must be False, True or 'in_turn'; got 'chain'"):
    along_trajectory(inner, reptile(), carry_optimizer="chain")
  slots = along_trajectory(inner, reptile(), carry_optimizer=True)
  state = training.init(toy.key(), inner.rule, toy.initial(), toy.shared(), outer, meta_grad=slots, tasks_per_step=2)
  with pytest.raises(ValueError, match="carry must have one slot for all tasks, "):
    training.meta_step(meta_grad, outer)(state, toy.tasks(2))


def warped_loss(w, shared, batch):
  return 0.5 * jnp.sum((shared * w - batch) ** 2), {}


def test_leap_in_warpgrad_s_released_code():
  """theta_0 to theta_{K-1} are stored, so there are K - 1 segments, and none of them has the loss as a coordinate."""
  targets, warp, start = TARGETS[0], np.array([1.0, 0.5]), np.array([0.3, -0.2])
  total = np.zeros(2)
  for target in targets:
    stored, w = [], start
    for _ in range(4):
      stored.append(w)
      w = w - 0.1 * warp * (warp * w - target)
    moves = np.diff(stored, axis=0)
    total -= np.sum(moves / np.linalg.norm(moves, axis=1, keepdims=True), axis=0)
  inner = wj.InnerLoop(warped_loss, rules.sgd(0.1), 4)
  optimizer = per_block(initial=optax.sgd(0.1), shared=optax.set_to_zero())
  step = replay.meta_step(inner, optimizer, eta=4, initial=leap(loss=False, all_segments=False, eps=0.0))
  state = training.init(toy.key(), inner.rule, jnp.asarray(start), jnp.asarray(warp), optimizer)
  tasks = Task(jnp.asarray(targets), jnp.asarray(targets))
  after, _ = toy.jit(step)(state, tasks)
  np.testing.assert_allclose(after.meta_params.initial, start - 0.1 * total / len(targets), rtol=1e-12)
  online = along_trajectory(inner, leap(loss=False, all_segments=False, eps=0.0))
  gradient = toy.run(online, MetaParams(jnp.asarray(start), jnp.asarray(warp)), Task(*2 * [jnp.asarray(targets[0])]))
  assert bool(jnp.isfinite(gradient[1].initial).all())
