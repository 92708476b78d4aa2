"""Which kinds of keys keep the promise that a task depends on the run's key and its index alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import warpjax as wj
from tests import toy
from warpjax import evaluation, rules, training
from warpjax.checks import check_key
from warpjax.evaluation import step_statistics
from warpjax.meta_gradients import evolution_strategies, unrolled
from warpjax.networks import probes
from warpjax.rl import held
from warpjax.tasks import augment
from warpjax.training import replay
from warpjax.training.task_batch import adapt_keys, mean_over_tasks, rule_key, sample_tasks, task_key
from warpjax.types import Task

pytestmark = pytest.mark.usefixtures("strict")

THREEFRY = "threefry2x32"
OTHERS = ("rbg", "unsafe_rbg")
INNER = toy.loop(num_steps=2, batch_fn=wj.minibatch(2))
OPTIMIZER = optax.sgd(0.1)
POINT = toy.meta_params()


def sampler(key):
  support, query = jax.random.normal(key, (2, 2, 4, 2))
  return Task(tuple(support), tuple(query))


def start(key):
  return training.init(key, INNER.rule, POINT.initial, POINT.shared, OPTIMIZER)


def state_with(key):
  return start(jax.random.key(0, impl=THREEFRY))._replace(key=key)


def step(**kwargs):
  return training.meta_step(unrolled(INNER), OPTIMIZER, **kwargs)


def statistics(key):
  apply = lambda params, shared, stats, x: (x, {"mean": jnp.mean(x)})
  return step_statistics.collect(INNER, POINT, sampler, key, apply, num_tasks=2)


WHERE = {
  "init": start,
  "task_key": lambda key: task_key(key, 0),
  "adapt_keys": lambda key: adapt_keys(key, 0, 0, 3),
  "rule_key": rule_key,
  "sample_tasks": lambda key: sample_tasks(sampler, key, 3),
  "meta_step": lambda key: step()(state_with(key), toy.tasks(2)),
  "many_steps": lambda key: training.many_steps(step(), sampler, tasks_per_step=2, num_steps=1)(state_with(key)),
  "evaluate": lambda key: evaluation.evaluate(INNER, POINT, sampler, key, num_tasks=2, metric="mse"),
  "evaluate stored": lambda key: evaluation.evaluate(INNER, POINT, toy.tasks(2), key, num_tasks=2, metric="mse"),
  "step_statistics": statistics,
  "replay": lambda key: replay.collect(INNER, POINT, toy.tasks(2), jax.random.split(key)),
  "policy gradients": lambda key: held.hold(INNER, None, state_with(key), toy.tasks(2)),
}


@pytest.mark.parametrize("impl", OTHERS)
@pytest.mark.parametrize("where", WHERE)
def test_other_kinds_are_refused_where_the_promise_is_made(where, impl):
  with pytest.raises(ValueError, match=rf"must be a threefry key, jax\.random\.key\(seed, .*got a key of '{impl}'"):
    WHERE[where](jax.random.key(0, impl=impl))
  with jax.default_prng_impl(impl), pytest.raises(ValueError, match="the default where jax_default_prng_impl says so"):
    WHERE[where](jax.random.key(0))
  with jax.default_prng_impl(impl), pytest.raises(ValueError, match="must be a threefry key"):
    WHERE[where](jax.random.PRNGKey(0))


@pytest.mark.parametrize("key", [0, None, 1.5, np.zeros(2), jnp.zeros(3, jnp.uint32), jnp.zeros((), jnp.uint32)])
def test_what_is_no_key_is_refused(key):
  with pytest.raises(ValueError, match=r"key must be a key, such as jax\.random\.key\(0\); got"):
    start(key)


def trained(key):
  """Everything that depends on a key: rule parameters, tasks, batches, the parameters after them, an evaluation."""
  rule = rules.meta_sgd((0.05, 0.1))
  inner = INNER._replace(rule=rule)
  state = training.init(key, rule, POINT.initial, POINT.shared, OPTIMIZER)
  run = training.many_steps(training.meta_step(unrolled(inner), OPTIMIZER), sampler, tasks_per_step=3, num_steps=2)
  state, metrics = toy.jit(run)(state)
  measured = evaluation.evaluate(inner, state.meta_params, sampler, key, num_tasks=3, metric="mse")
  return state.meta_params, metrics, measured.per_task


def test_raw_keys_and_another_default_are_the_same():
  expected = trained(jax.random.key(3, impl=THREEFRY))
  jax.tree.map(np.testing.assert_array_equal, trained(jax.random.PRNGKey(3, impl=THREEFRY)), expected)
  with jax.default_prng_impl("unsafe_rbg"):
    jax.tree.map(np.testing.assert_array_equal, trained(jax.random.key(3, impl=THREEFRY)), expected)


@pytest.mark.parametrize("impl", OTHERS[:1])
def test_keys_that_ride_in_a_batch_do_not_depend_on_the_default(impl):
  key = jax.random.key(3, impl=THREEFRY)

  def mask():
    (_, data), _ = augment.keyed(wj.full_batch)(key, (jnp.ones((2, 4, 4, 1)), jnp.zeros(2)), 1, (), ())
    return jax.random.uniform(probes.key_of(data), (4,))

  def directions():
    estimate = evolution_strategies(INNER._replace(batch_fn=wj.full_batch), std=0.1, task=toy.task(), window=1)
    return estimate.grad(POINT, toy.task(), key, estimate.init(POINT))[0]

  for function in (mask, directions):
    expected = function()
    with jax.default_prng_impl(impl):
      jax.tree.map(np.testing.assert_array_equal, function(), expected)


@pytest.mark.parametrize("partitionable", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_task_does_not_depend_on_chunk_or_devices(partitionable):
  key = jax.random.key(5, impl=THREEFRY)
  with jax.threefry_partitionable(partitionable):
    whole = sample_tasks(sampler, task_key(key, 2), 6)
    keys = adapt_keys(key, 2, 0, 6)
    alone = sampler(jax.random.fold_in(task_key(key, 2), 4))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf: leaf[4], whole), alone)
    parts = [sample_tasks(sampler, task_key(key, 2), 2, first) for first in (0, 2, 4)]
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), whole)
    at = lambda chunk: toy.jit(lambda tasks, keys: mean_over_tasks(unrolled(INNER), POINT, tasks, keys, (), chunk)[:2])(
      whole, keys
    )
    expected = at(6)
    for chunk in (1, 4):
      toy.assert_close(at(chunk), expected, rtol=1e-5, atol=1e-6)


def test_keys_are_checked_while_they_are_traced():
  jax.jit(check_key)(jax.random.key(0, impl=THREEFRY))
  with pytest.raises(ValueError, match="must be a threefry key"):
    jax.jit(check_key)(jax.random.key(0, impl="rbg"))
