"""A batch of tasks: drawn by key on the device, computed in chunks, averaged."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.checks import check_key
from warpjax.mistakes import check_one_batch, check_sampler
from warpjax.numerics import add_to, cast_like, sum_dtype
from warpjax.types import CarriedMetaGrad, MetaGradFn, MetaParams, PyTree, Task, TaskSampler

# Streams of the run's key, so that tasks, adaptation and the rule's draws never share a number.
_TASK_STREAM, _ADAPT_STREAM, _RULE_STREAM = 1, 2, 3

# On CPU a chunk's data should stay near the caches.
_CPU_CHUNK_BYTES = 1 << 16


def task_key(key: jax.Array, step: Any) -> jax.Array:
  """The key of the task batch of meta-step `step` of the run with `key`."""
  check_key(key)
  return jax.random.fold_in(jax.random.fold_in(key, _TASK_STREAM), step)


def adapt_keys(key: jax.Array, step: Any, first: Any, num_tasks: int) -> jax.Array:
  """The keys that tasks `first` to `first + num_tasks - 1` of meta-step `step` are adapted with, `[num_tasks]`."""
  check_key(key)
  step_key = jax.random.fold_in(jax.random.fold_in(key, _ADAPT_STREAM), step)
  return jax.vmap(lambda index: jax.random.fold_in(step_key, index))(first + jnp.arange(num_tasks))


def rule_key(key: jax.Array) -> jax.Array:
  """The key of the rule's own draws."""
  check_key(key)
  return jax.random.fold_in(key, _RULE_STREAM)


def first_task(local: int, axis_name: str | None) -> Any:
  """Index of this device's first task, if each device has `local` tasks."""
  return 0 if axis_name is None else jax.lax.axis_index(axis_name) * local


def as_argument(sampler: TaskSampler, name: str = "sampler") -> jax.tree_util.Partial:
  """The sampler as an argument of a jitted function, where its arrays are data and not constants of the program."""
  check_sampler(sampler, name)
  return sampler if isinstance(sampler, jax.tree_util.Partial) else jax.tree_util.Partial(sampler)


def count_tasks(tasks: PyTree, name: str = "tasks") -> int:
  """How many tasks a batch of leaves `[num_tasks, ...]` has.

  Raises:
    ValueError: when its leaves have no common first axis, as those of a single task.
  """
  check_one_batch(tasks)
  shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tasks)]
  if len({shape[:1] for shape in shapes}) != 1 or () in shapes:
    raise ValueError(
      f"{name} must have leaves [num_tasks, ...] with the same num_tasks, such as those of training.sample_tasks; "
      f"got the shapes {', '.join(map(str, shapes))}"
    )
  if not shapes[0][0]:
    raise ValueError(f"{name} must hold one task or more; got leaves of the shapes {', '.join(map(str, shapes))}")
  return shapes[0][0]


def sample_tasks(sampler: TaskSampler, key: jax.Array, num_tasks: int, first: Any = 0) -> Task:
  """Tasks `first` to `first + num_tasks - 1` of the batch of `key`.

  Args:
    sampler: Draws one task from a key.
    key: The batch's key.
    num_tasks: How many.
    first: Index of the first; a device that holds a part of the batch starts further on.

  Returns:
    A `Task` of leaves `[num_tasks, ...]`.

  Raises:
    ValueError: for a key of another kind than threefry (`checks.check_key`), or a sampler that is no function.
  """
  check_key(key)
  check_sampler(sampler)
  keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(first + jnp.arange(num_tasks))
  return jax.vmap(sampler)(keys)


def default_task_chunk(tasks: Task) -> int:
  """The number of vmapped tasks: all on accelerators; on a CPU as many as keep a chunk's data within 64 KiB."""
  leaves, num_tasks = jax.tree.leaves(tasks), count_tasks(tasks)
  if jax.default_backend() != "cpu":
    return num_tasks
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.number))
  return max(1, min(num_tasks, _CPU_CHUNK_BYTES * num_tasks // max(size, 1)))


def side_by_side(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
  """`vmap(function)`, without the axis if it has length one, which would hide matrix products from XLA."""

  def many(*inputs: PyTree) -> PyTree:
    if jax.tree.leaves(inputs)[0].shape[0] > 1:
      return jax.vmap(function)(*inputs)
    one = jax.tree.map(lambda leaf: jnp.squeeze(leaf, 0), inputs)
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), function(*one))

  return many


def map_tasks(function: Callable[[Any], PyTree], inputs: PyTree, chunk: int) -> PyTree:
  """`function` of each task, in vmapped chunks of `chunk`, or without a task axis if that is one.

  Args:
    function: A function of one task's inputs.
    inputs: Leaves `[num_tasks, ...]`.
    chunk: Vmapped tasks.

  Returns:
    Leaves `[num_tasks, ...]`.
  """
  return jax.lax.map(function, inputs, batch_size=chunk if chunk > 1 else None)


def mean_over_tasks(
  meta_grad: MetaGradFn | CarriedMetaGrad,
  meta_params: MetaParams,
  tasks: Task,
  keys: jax.Array,
  carry: PyTree,
  chunk: int,
) -> tuple[Any, MetaParams, PyTree]:
  """The mean of value, aux and gradient over tasks, in vmapped chunks of `chunk`, summed in sequence.

  Args:
    meta_grad: For one task.
    meta_params: The point at which the gradient is taken.
    tasks: Leaves `[num_tasks, ...]`.
    keys: A key for each task, `[num_tasks]`.
    carry: Leaves `[num_tasks, ...]`, `[1, ...]` if it is passed through the tasks, or `()`.
    chunk: Vmapped tasks; a remainder is a chunk of its own. Not used if one state is passed through the tasks.

  Returns:
    `((loss, aux), gradient, carry)`; loss and aux at least in single precision, the gradient in its parameters' dtypes.
  """

  if isinstance(meta_grad, CarriedMetaGrad) and meta_grad.in_turn:
    return _mean_in_turn(meta_grad, meta_params, tasks, keys, carry)

  def total(inputs: tuple) -> tuple[PyTree, PyTree]:
    results, new_carry = side_by_side(partial(_with_carry, meta_grad, meta_params))(*inputs)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0, dtype=sum_dtype(leaf)), results), new_carry

  num_tasks = keys.shape[0]
  inputs = (tasks, keys, carry)
  whole = num_tasks // chunk if chunk < num_tasks else 0
  sums, parts = None, []
  if whole:
    head = jax.tree.map(lambda leaf: leaf[: whole * chunk].reshape(whole, chunk, *leaf.shape[1:]), inputs)
    sums, new_carry = _sum_in_sequence(total, head)
    parts.append(jax.tree.map(lambda leaf: leaf.reshape(whole * chunk, *leaf.shape[2:]), new_carry))
  if whole * chunk < num_tasks:
    rest, new_carry = total(jax.tree.map(lambda leaf: leaf[whole * chunk :], inputs))
    sums = rest if sums is None else jax.tree.map(jnp.add, sums, rest)
    parts.append(new_carry)
  (value, aux), grads = jax.tree.map(lambda leaf: leaf / num_tasks, sums)
  return (value, aux), cast_like(grads, meta_params), jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _with_carry(meta_grad: Any, meta_params: MetaParams, task: Task, key: jax.Array, carry: PyTree) -> Any:
  if isinstance(meta_grad, CarriedMetaGrad):
    return meta_grad.grad(meta_params, task, key, carry)
  return meta_grad(meta_params, task, key), carry


def _mean_in_turn(
  meta_grad: CarriedMetaGrad, meta_params: MetaParams, tasks: Task, keys: jax.Array, carry: PyTree
) -> tuple[Any, MetaParams, PyTree]:
  """The mean over tasks that pass one carry on."""

  def body(state: tuple[PyTree, PyTree], inputs: tuple[Task, jax.Array]) -> tuple[tuple[PyTree, PyTree], None]:
    result, slot = meta_grad.grad(meta_params, inputs[0], inputs[1], state[1])
    return (add_to(state[0], result), slot), None

  slot = jax.tree.map(lambda leaf: jnp.squeeze(leaf, 0), carry)
  task, key = jax.tree.map(lambda leaf: leaf[0], (tasks, keys))
  shapes = jax.eval_shape(lambda: meta_grad.grad(meta_params, task, key, slot)[0])
  start = jax.tree.map(lambda s: jnp.zeros(s.shape, sum_dtype(s)), shapes)
  (sums, slot), _ = jax.lax.scan(body, (start, slot), (tasks, keys))
  (value, aux), grads = jax.tree.map(lambda leaf: leaf / keys.shape[0], sums)
  return (value, aux), cast_like(grads, meta_params), jax.tree.map(lambda leaf: leaf[None], slot)


def _sum_in_sequence(total: Callable[[Any], tuple[PyTree, PyTree]], chunks: PyTree) -> tuple[PyTree, PyTree]:
  def body(sums: PyTree, chunk: PyTree) -> tuple[PyTree, PyTree]:
    more, carry = total(chunk)
    return jax.tree.map(jnp.add, sums, more), carry

  shapes = jax.eval_shape(lambda chunk: total(chunk)[0], jax.tree.map(lambda leaf: leaf[0], chunks))
  return jax.lax.scan(body, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), chunks)
