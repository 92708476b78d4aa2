"""The meta-step against an outer loop written out, and what a run carries on."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import rules, training
from warpjax.meta_gradients import along_trajectory, reptile, unrolled
from warpjax.training import compose
from warpjax.training.task_batch import adapt_keys, sample_tasks, task_key
from warpjax.types import CarriedMetaGrad, Task

pytestmark = pytest.mark.usefixtures("strict")

OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(0.1))
# With minibatches, so that a task that met another's key would show.
INNER = toy.loop(num_steps=2, batch_fn=toy.pair)


def sampler(key):
  support, query = jax.random.normal(key, (2, 2, 4, 2))
  return Task(tuple(support), tuple(query))


def start(inner=INNER, optimizer=OPTIMIZER, **kwargs):
  params = toy.meta_params()
  return training.init(toy.key(), inner.rule, params.initial, params.shared, optimizer, **kwargs)


def quadratic_grad(aux):
  """A meta-gradient that costs nothing to compile; a task is a number, and `aux` makes of it what it likes."""

  def estimate(meta_params, task, key):
    loss = lambda point: 0.5 * jnp.sum((point.initial - task) ** 2)
    return (loss(meta_params), aux(task)), jax.grad(loss)(meta_params)

  return estimate


def scalar_state(**kwargs):
  return training.init(toy.key(), rules.sgd(0.1), jnp.zeros(()), (), optax.sgd(1.0), **kwargs)


def test_a_meta_step_is_the_outer_update_written_out():
  estimate, tasks = unrolled(INNER), toy.tasks(3)
  one, step = toy.jit(estimate), toy.jit(training.meta_step(estimate, OPTIMIZER))
  state = start()
  params, opt_state = state.meta_params, OPTIMIZER.init(state.meta_params)

  @toy.jit
  def update(params, opt_state, results):
    (loss, aux), grads = jax.tree.map(lambda *leaves: sum(leaves) / 3, *results)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    norms = {f"grad_norm/{name}": optax.tree.norm(getattr(grads, name)) for name in ("initial", "shared")}
    norms |= {f"param_norm/{name}": optax.tree.norm(getattr(params, name)) for name in ("initial", "shared")}
    return params, opt_state, {"loss": loss, **aux, **norms, "finite": jnp.array(True)}

  for index in range(2):
    state, metrics = step(state, tasks)
    keys = adapt_keys(toy.key(), index, 0, 3)
    results = [one(params, jax.tree.map(lambda leaf, i=i: leaf[i], tasks), keys[i]) for i in range(3)]
    params, opt_state, expected = update(params, opt_state, results)
    toy.assert_close((state.meta_params, state.opt_state), (params, opt_state))
    toy.assert_close(metrics, expected)
    assert state.step == index + 1 and state.carry == ()
    assert np.array_equal(jax.random.key_data(state.key), jax.random.key_data(toy.key()))


def test_the_rule_is_meta_learned_too():
  inner = toy.loop(rules.meta_sgd((0.01, 0.1)), 1)
  state, metrics = toy.jit(training.meta_step(unrolled(inner), OPTIMIZER))(start(inner), toy.tasks(2))
  assert {"grad_norm/initial", "grad_norm/shared", "grad_norm/rule"} < set(metrics)
  before = start(inner).meta_params
  assert all(np.all(a != b) for a, b in zip(*map(jax.tree.leaves, (before, state.meta_params)), strict=True))


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_is_reported(where):
  def estimate(meta_params, task, key):
    bad = lambda name: jnp.where((task > 1) & (name == where), jnp.inf, 1.0)
    return (bad("loss"), {}), meta_params._replace(initial=bad("gradient"))

  step = training.meta_step(estimate, optax.sgd(1.0))
  assert step(scalar_state(), jnp.array([0.0, 1.0]))[1]["finite"]
  assert not step(scalar_state(), jnp.array([0.0, 2.0]))[1]["finite"]


@pytest.mark.parametrize("chunk", [None, 2])
def test_a_task_in_the_place_of_a_batch_is_refused(chunk):
  one = Task(toy.task(num_examples=4).support, toy.task(num_examples=6).query)
  with pytest.raises(
    ValueError, match=r"tasks must have leaves .* got the shapes \(4, 2\), \(4, 2\), \(6, 2\), \(6, 2\)"
  ):
    training.meta_step(unrolled(INNER), OPTIMIZER, task_chunk=chunk)(start(), one)


def test_the_task_chunk_changes_nothing():
  """Which chunks there are is `mean_over_tasks`' own test."""
  steps = [training.meta_step(unrolled(INNER), OPTIMIZER, task_chunk=chunk) for chunk in (None, 2, 8)]
  results = [toy.jit(step)(start(), toy.tasks(3)) for step in steps]
  for state, metrics in results[1:]:
    toy.assert_close((state.meta_params, metrics), (results[0][0].meta_params, results[0][1]))


def test_many_steps_are_that_many_single_steps_bit_for_bit():
  step = training.meta_step(unrolled(INNER), OPTIMIZER)
  many = toy.jit(training.many_steps(step, sampler, tasks_per_step=3, num_steps=4))
  end, metrics = many(start())

  @toy.jit
  def single(state):
    return step(state, sample_tasks(sampler, task_key(state.key, state.step), 3))

  state, seen = start(), []
  for _ in range(4):
    state, one = single(state)
    seen.append(one)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)
  plain = lambda state: state._replace(key=jax.random.key_data(state.key))
  chex.assert_trees_all_equal((plain(state), stacked), (plain(end), metrics))
  assert end.step == 4 and len(set(metrics["loss"].tolist())) == 4


def test_a_carry_advances_by_task_slot():
  """Each slot sums the tasks it met; the next step finds what the last one left."""

  def grad(meta_params, task, key, carry):
    return ((task, {"carry": carry}), meta_params), carry + task

  meta_grad = CarriedMetaGrad(lambda meta_params: meta_params.initial + 100, grad)
  state = scalar_state(meta_grad=meta_grad, tasks_per_step=3)
  np.testing.assert_array_equal(state.carry, [100, 100, 100])
  for chunk in (None, 2):
    step, now = training.meta_step(meta_grad, optax.sgd(1.0), task_chunk=chunk), state
    for tasks, seen in (((1.0, 2.0, 3.0), 100), ((10.0, 20.0, 60.0), 102)):
      now, metrics = step(now, jnp.array(tasks))
      assert metrics["carry"] == seen
    np.testing.assert_array_equal(now.carry, [111, 122, 163])


def test_reptile_carries_adams_moments_from_task_to_task_in_a_slot():
  inner, outer = toy.loop(rules.adam(0.1, b1=0.5), 2), optax.sgd(0.5)
  meta_grad = along_trajectory(inner, reptile(), carry_optimizer=True)
  state = start(inner, outer, meta_grad=meta_grad, tasks_per_step=3)
  step = toy.jit(training.meta_step(meta_grad, outer, task_chunk=2))
  adam = inner.rule.transform(())

  @toy.jit
  def descend(params, slot, shared, batch):
    updates, slot = adam.update(jax.grad(toy.loss_fn, has_aux=True)(params, shared, batch)[0], slot, params)
    return optax.apply_updates(params, updates), slot

  slots = [adam.init(state.meta_params.initial)] * 3
  for index in range(2):
    tasks = jax.tree.map(lambda leaf, index=index: leaf[3 * index : 3 * index + 3], toy.tasks(6))
    before, (state, _) = state.meta_params, step(state, tasks)
    ends = []
    for slot in range(3):
      params, support = before.initial, jax.tree.map(lambda leaf, slot=slot: leaf[slot], tasks.support)
      for _ in range(2):
        params, slots[slot] = descend(params, slots[slot], before.shared, support)
      ends.append(params)
    moved = jax.tree.map(lambda old, *new: old - 0.5 * (old - sum(new) / 3), before.initial, *ends)
    toy.assert_close(state.meta_params, before._replace(initial=moved))
    toy.assert_close(state.carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *slots))
  assert set(optax.tree.get(state.carry, "count").tolist()) == {4}


def test_counts_and_flags_in_aux():
  estimate = quadratic_grad(lambda task: {"steps": (3 * task).astype(jnp.int32), "small": task < 2})
  for chunk in (None, 2):
    step = jax.jit(training.meta_step(estimate, optax.sgd(1.0), task_chunk=chunk))
    state, metrics = step(scalar_state(), jnp.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert state.meta_params.initial == 2
    np.testing.assert_allclose((metrics["steps"], metrics["small"], metrics["loss"]), (6, 0.4, 3))


def test_parameters_of_a_weak_type_do_not_compile_twice():
  optimizer, loss = optax.adam(0.1), lambda params, shared, batch: ((params * shared - batch) ** 2, {})
  inner = wj.InnerLoop(loss, rules.sgd(0.1), 2)
  state = training.init(toy.key(), inner.rule, jnp.asarray(1.0), 2.0, optimizer)
  step = jax.jit(chex.assert_max_traces(training.meta_step(unrolled(inner), optimizer), n=1))
  for _ in range(3):
    state, _ = step(state, Task(jnp.ones(2), jnp.ones(2)))


def test_bad_input():
  estimate, carried = quadratic_grad(lambda task: {}), along_trajectory(INNER, reptile(), carry_optimizer=True)
  step = training.meta_step(estimate, OPTIMIZER, axis_name="devices")
  many = training.many_steps(step, jax.random.normal, tasks_per_step=3, num_steps=2, axis_name="devices")
  adam_carried = along_trajectory(INNER._replace(rule=rules.adam(0.1)), reptile(), carry_optimizer=True)
  state = scalar_state()
  refusals = {
    "task_chunk must be None or an integer of at least 1; got 0": lambda: training.meta_step(
      estimate, OPTIMIZER, task_chunk=0
    ),
    "tasks_per_step must be given for a meta-gradient with state, .*": lambda: start(meta_grad=carried),
    "^tasks_per_step must be an integer of at least 1; got 0$": lambda: start(meta_grad=carried, tasks_per_step=0),
    "the state lacks the carry of this meta-gradient": lambda: training.meta_step(adam_carried, OPTIMIZER)(
      state, jnp.arange(2.0)
    ),
    "tasks_per_step must be an integer of at least 1; got 0": lambda: training.many_steps(
      step, jax.random.normal, tasks_per_step=0, num_steps=2
    ),
    "num_steps must be an integer of at least 1; got 0": lambda: training.many_steps(
      step, jax.random.normal, tasks_per_step=2, num_steps=0
    ),
    "tasks_per_step must be a multiple of the 2 devices; got 3": lambda: jax.vmap(
      lambda _: many(state), axis_name="devices"
    )(jnp.arange(2)),
  }
  for message, call in refusals.items():
    with pytest.raises(ValueError, match=message):
      call()


@pytest.mark.parametrize("rule", [optax.sgd(0.1), rules.sgd])
def test_what_is_no_rule_is_refused(rule):
  with pytest.raises(ValueError, match=r"rule must be an UpdateRule such as rules.sgd\(0.1\), or, of an optax"):
    training.init(jax.random.key(0), rule, jnp.zeros(2), (), optax.sgd(0.1))


def test_an_update_that_is_not_finite_is_left_out_whole():
  """Parameters, optimizer state and the carry of the task stay to the bit; the next task batch is trained on."""
  inner = toy.loop(wj.rules.sgd(0.1, 0.9), num_steps=2)
  meta_grad = wj.meta_gradients.along_trajectory(inner, wj.meta_gradients.reptile(), carry_optimizer=True)
  point, optimizer = toy.meta_params(), optax.adam(0.1)
  state = training.init(
    toy.key(), inner.rule, point.initial, point.shared, optimizer, meta_grad=meta_grad, tasks_per_step=2
  )
  step = toy.jit(training.skip_nonfinite(training.meta_step(meta_grad, optimizer)))
  good = toy.tasks(2)
  bad = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), good)
  after, metrics = step(state, bad)
  assert int(metrics["skipped"]) == 1 and not metrics["finite"] and int(after.step) == int(state.step) + 1
  for name in ("meta_params", "opt_state"):
    chex.assert_trees_all_equal(getattr(after, name), getattr(state, name))
  jax.tree.map(lambda new, old: np.testing.assert_array_equal(new[0], old[0]), after.carry, state.carry)
  whole = toy.jit(training.meta_step(meta_grad, optimizer))(state, good)[0].carry
  jax.tree.map(lambda new, fine: np.testing.assert_array_equal(new[1], fine[1]), after.carry, whole)
  trained, metrics = step(after, good)
  assert int(metrics["skipped"]) == 0 and metrics["finite"]
  assert float(optax.tree.norm(optax.tree.sub(trained.meta_params, after.meta_params))) > 0


RUNAWAY = rules.learned(optax.sgd, learning_rate=60.0)  # |1 - 2 * 60 / 3| = 39 a step on the mean over three


def mean_square(params, shared, batch):
  return jnp.mean((params - batch) ** 2), {}


@pytest.mark.parametrize("name", ["truncated_unroll", pytest.param("evolution_strategies", marks=pytest.mark.slow)])
def test_a_lifetime_that_runs_away_ends_and_another_begins(name):
  """The loss overflows after some 97 steps, the parameters after 193, so half of the segments of 20 are left out.

  Where nothing restarted the adaptation, it would stay where its next segment overflows.
  """
  inner, example = wj.InnerLoop(mean_square, RUNAWAY, num_steps=400), wj.Task(jnp.zeros(3), jnp.zeros(3))
  estimate = {
    "truncated_unroll": lambda: wj.meta_gradients.truncated_unroll(inner, 20),
    "evolution_strategies": lambda: wj.meta_gradients.evolution_strategies(inner, 1e-3, window=20, task=example),
  }[name]()
  optimizer = optax.sgd(0.0)
  state = training.init(toy.key(), RUNAWAY, jnp.zeros(3), (), optimizer, meta_grad=estimate, tasks_per_step=2)
  step = training.skip_nonfinite(training.meta_step(estimate, optimizer))
  sampler = lambda key: wj.Task(*2 * [jax.random.normal(key, (3,))])
  state, metrics = toy.jit(training.many_steps(step, sampler, tasks_per_step=2, num_steps=40))(state)
  assert 0 < metrics["skipped"][:20].sum() < 20 and 0 < metrics["skipped"][20:].sum() < 20
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.meta_params))


def test_a_segment_that_is_left_out_does_not_shift_those_of_later_tasks():
  def batch_fn(key, support, step, params, shared):
    return jnp.where((step == 25) & (support > 5), jnp.nan, support)

  rule = rules.learned(optax.sgd, learning_rate=0.1)
  inner = wj.InnerLoop(mean_square, rule, num_steps=40, batch_fn=batch_fn)
  estimate, optimizer = wj.meta_gradients.truncated_unroll(inner, 10), optax.adam(1e-3)
  state = training.init(toy.key(), rule, jnp.zeros(1), (), optimizer, meta_grad=estimate, tasks_per_step=1)
  step = toy.jit(compose.repeated(training.skip_nonfinite(training.meta_step(estimate, optimizer)), 4))
  for target, skipped in ((1.0, 0), (10.0, 1), (1.0, 0)):
    state, metrics = step(state, wj.Task(*2 * [jnp.full((1, 1), target)]))
    assert int(state.carry.number[0]) == 0 and int(metrics["skipped"]) == skipped


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_carry_for_another_number_of_tasks_is_refused(chunk):
  inner = toy.loop(wj.rules.sgd(0.1, 0.9), num_steps=2)
  meta_grad = wj.meta_gradients.along_trajectory(inner, wj.meta_gradients.reptile(), carry_optimizer=True)
  point, optimizer = toy.meta_params(), optax.sgd(0.1)
  state = training.init(
    toy.key(), inner.rule, point.initial, point.shared, optimizer, meta_grad=meta_grad, tasks_per_step=8
  )
  with pytest.raises(ValueError, match=r"a slot for each of the 4 tasks, \(4, 3\); .*tasks_per_step=4\); got \(8, 3\)"):
    training.meta_step(meta_grad, optimizer, task_chunk=chunk)(state, toy.tasks(4))
