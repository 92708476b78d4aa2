"""Task batches: their keys, and their mean in chunks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import warpjax as wj
from tests import toy
from warpjax.meta_gradients import unrolled
from warpjax.training.task_batch import (
  adapt_keys,
  count_tasks,
  default_task_chunk,
  first_task,
  mean_over_tasks,
  rule_key,
  sample_tasks,
  side_by_side,
  task_key,
)
from warpjax.types import CarriedMetaGrad, MetaParams, Task

pytestmark = pytest.mark.usefixtures("strict")


def numbers(keys):
  """Each key as a tuple of integers."""
  return [tuple(map(int, row)) for row in np.reshape(jax.random.key_data(keys), (-1, 2))]


def key_sampler(key):
  """A task that holds the key that it was drawn from."""
  return Task(key, jax.random.key_data(key))


def test_no_two_streams_share_a_key():
  seen = [*numbers(toy.key()), *numbers(rule_key(toy.key()))]
  for step in range(4):
    seen += numbers(task_key(toy.key(), step)) + numbers(adapt_keys(toy.key(), step, 0, 5))
    seen += numbers(sample_tasks(key_sampler, task_key(toy.key(), step), 5).support)
  assert len(seen) == 2 + 4 * 11 == len(set(seen))


def test_a_task_depends_on_its_index_and_not_on_where_its_part_begins():
  batch = task_key(toy.key(), 3)
  whole = sample_tasks(key_sampler, batch, 6).query
  np.testing.assert_array_equal(sample_tasks(key_sampler, batch, 3, first=2).query, whole[2:5])
  np.testing.assert_array_equal(jax.jit(lambda i: sample_tasks(key_sampler, batch, 3, i).query)(3), whole[3:])
  assert numbers(adapt_keys(toy.key(), 3, 2, 3)) == numbers(adapt_keys(toy.key(), 3, 0, 6))[2:5]


@pytest.mark.parametrize("devices", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_task_does_not_depend_on_the_number_of_devices(devices):
  batch, local = task_key(toy.key(), 3), 6 // devices

  def part(_):
    first = first_task(local, "devices")
    keys = adapt_keys(toy.key(), 3, first, local)
    return sample_tasks(key_sampler, batch, local, first).query, jax.random.key_data(keys)

  parts = jax.vmap(part, axis_name="devices")(jnp.arange(devices))
  whole = sample_tasks(key_sampler, batch, 6).query, jax.random.key_data(adapt_keys(toy.key(), 3, 0, 6))
  toy.assert_close(jax.tree.map(lambda leaf: leaf.reshape(6, 2), parts), whole)
  assert first_task(local, None) == 0


def test_the_mean_is_that_of_plain_vmap_whatever_the_chunk():
  """With a minibatch, so that a task that met another's key would show."""
  count, meta_params = 5, toy.meta_params()
  tasks, keys = toy.tasks(count), adapt_keys(toy.key(), 0, 0, count)
  estimate = unrolled(toy.loop(num_steps=2, batch_fn=wj.minibatch(2)))
  results = toy.jit(jax.vmap(estimate, in_axes=(None, 0, 0)))(meta_params, tasks, keys)
  expected = jax.tree.map(lambda leaf: np.mean(leaf, axis=0), results)
  for chunk in (1, 2, 9):
    mean = toy.jit(lambda m, t, k, chunk=chunk: mean_over_tasks(estimate, m, t, k, (), chunk))
    value, grads, carry = mean(meta_params, tasks, keys)
    toy.assert_close((value, grads), expected, rtol=1e-12, atol=1e-14)
    assert carry == ()


@pytest.mark.parametrize("chunk", [pytest.param(2, marks=pytest.mark.slow), 3, 5])
def test_a_carry_stays_with_its_task(chunk):
  def grad(meta_params, task, key, carry):
    number = jax.random.key_data(key).astype(float)
    return ((task, {"carry": carry[0]}), meta_params), (carry[0] + task, number)

  meta_grad = CarriedMetaGrad(lambda meta_params: (jnp.zeros(()), jnp.zeros(2)), grad)
  tasks, keys = jnp.arange(5.0) ** 2, adapt_keys(toy.key(), 0, 0, 5)
  before = (10 * jnp.arange(5.0), jnp.zeros((5, 2)))
  (value, aux), _, after = mean_over_tasks(meta_grad, MetaParams(jnp.zeros(2)), tasks, keys, before, chunk)
  toy.assert_close(after, (before[0] + tasks, jax.random.key_data(keys).astype(float)))
  assert value == 6 and aux["carry"] == 20


@pytest.mark.parametrize("chunk", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_counts_and_flags_are_averaged_as_fractions(chunk):
  def estimate(meta_params, task, key):
    aux = {"count": task, "small": task < 2, "byte": (task + 200).astype(jnp.uint8)}
    return (task.astype(jnp.float32), aux), meta_params

  tasks, keys = jnp.arange(5), adapt_keys(toy.key(), 0, 0, 5)
  (value, aux), grads, _ = mean_over_tasks(estimate, MetaParams(jnp.ones(3, jnp.float32)), tasks, keys, (), chunk)
  assert {name: float(leaf) for name, leaf in aux.items()} == {"count": 2.0, "small": 0.4, "byte": 202.0}
  assert value.dtype == grads.initial.dtype == jnp.float32 and value == 2


@pytest.mark.parametrize("chunk", [1, 600])
def test_half_precision_is_averaged_in_single(chunk):
  def estimate(meta_params, task, key):
    return (task, {"aux": task}), meta_params._replace(initial=task)

  meta_params, tasks = MetaParams(jnp.zeros((), jnp.bfloat16)), jnp.ones(600, jnp.bfloat16)
  keys = jnp.zeros((600, 2), jnp.uint32)
  (value, aux), grads, _ = mean_over_tasks(estimate, meta_params, tasks, keys, (), chunk)
  assert value == aux["aux"] == grads.initial == 1 and grads.initial.dtype == jnp.bfloat16


def test_the_default_chunk(monkeypatch):
  tasks = lambda count, size, dtype=jnp.float32: Task(jax.ShapeDtypeStruct((count, size), dtype), ())
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  assert default_task_chunk(tasks(16, 10)) == 16
  assert default_task_chunk(tasks(16, 1 << 12)) == 4  # 16 KiB a task
  assert default_task_chunk(tasks(16, 1 << 12, jnp.uint8)) == 16
  assert default_task_chunk(tasks(16, 1 << 20)) == 1
  assert default_task_chunk(Task(jax.random.split(toy.key(), 7), ())) == 7  # keys are not data
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert default_task_chunk(tasks(16, 1 << 20)) == 16


def test_tasks_are_counted_by_their_common_first_axis():
  assert count_tasks(Task((jnp.ones((3, 5)), jax.random.split(toy.key(), 3)), ())) == 3
  for shapes in (((4, 2), (6, 2)), ((), ()), ()):
    with pytest.raises(ValueError, match=r"tasks must have leaves \[num_tasks, \.\.\.\] with the same num_tasks"):
      count_tasks(Task(tuple(map(jnp.ones, shapes)), ()))


@pytest.mark.parametrize(("length", "batched"), [(1, False), (3, True)])
def test_one_alone_is_computed_without_an_axis(length, batched):
  x = jnp.arange(2.0 * length).reshape(length, 2)
  doubled = side_by_side(lambda x, scale: {"y": jnp.dot(x, x) * scale})
  result = doubled(x, jnp.full(length, 2.0))["y"]
  np.testing.assert_allclose(result, 2 * np.sum(np.square(x), axis=1))
  product = next(e for e in jax.make_jaxpr(doubled)(x, jnp.ones(length)).eqns if e.primitive.name == "dot_general")
  assert (product.outvars[0].aval.ndim == 1) == batched
