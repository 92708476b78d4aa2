"""The test tasks of an evaluation in parts, each a call of one compiled program."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.training.streams import chunks
from warpjax.training.task_batch import as_argument, count_tasks, default_task_chunk, map_tasks, sample_tasks
from warpjax.types import MetaParams, PyTree, Task, TaskSampler

Measured = tuple[jax.Array, dict[str, jax.Array]]
"""The metric after each step, and under each further readout at the end point."""


def size_of(num_tasks: int, most: int, at_once: int) -> int:
  """The tasks of each part: at most `most`. Several threads get about two parts each, if there are enough tasks.

  Example:
    >>> size_of(450, 200, 1), size_of(450, 200, 2), size_of(30, 200, 2)
    (200, 113, 8)
  """
  if at_once == 1:
    return min(num_tasks, most)  # whatever their number, so that another one does not compile again
  return -(-num_tasks // max(-(-num_tasks // most), 2 * at_once))


def in_order(program: Any, calls: Iterable[tuple], size: int, at_once: int) -> Iterator[Any]:
  """The results of a jitted `(*call, size)` for each call as NumPy arrays, in order, `at_once` of them at a time."""
  if at_once == 1:
    for call in calls:
      yield jax.device_get(program(*call, size))
    return
  # Placed and compiled here: a thread does not see the context managers of JAX, such as `jax.enable_x64`.
  placed = map(jax.device_put, calls)
  first = next(placed)
  compiled = program.lower(*first, size).compile()
  ready, pool = itertools.chain([first], placed), futures.ThreadPoolExecutor(at_once)
  try:
    while several := list(itertools.islice(ready, at_once)):
      yield from pool.map(lambda call: jax.device_get(compiled(*call)), several)
  finally:
    pool.shutdown(wait=False, cancel_futures=True)


def measure(
  measured: Callable[[MetaParams, Sequence[PyTree], Task, jax.Array], Measured],
  task_chunk: int | None,
  meta_params: MetaParams,
  data: Sequence[PyTree],
  sampler: TaskSampler | Task,
  key: jax.Array,
  first: jax.Array,
  count: int,
) -> Measured:
  """The measurements of tasks `first` to `first + count`, in one call."""
  indices = first + jnp.arange(count)
  if isinstance(sampler, Task):
    tasks = jax.tree.map(lambda leaf: leaf[indices % leaf.shape[0]], sampler)
  else:
    tasks = sample_tasks(sampler, jax.random.fold_in(key, 0), count, first)
  keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, 1), i))(indices)

  def one(args: tuple[Task, jax.Array]) -> Measured:
    return measured(meta_params, data, *args)

  chunk = min(count, task_chunk or default_task_chunk(tasks))
  return map_tasks(one, (tasks, keys), chunk)


def sources(
  sampler: TaskSampler | Task | Iterable[Task], size: int, num_tasks: int, tasks_per_batch: int | None
) -> tuple[Iterator[Any], int]:
  """The source of the tasks of each dispatch, and the number of different tasks."""
  if isinstance(sampler, Task) or callable(sampler):
    if tasks_per_batch is not None:
      raise ValueError(f"tasks_per_batch must be None but for an iterable of tasks; got {tasks_per_batch!r}")
    if isinstance(sampler, Task):
      return itertools.repeat(sampler), count_tasks(sampler, "sampler")
    return itertools.repeat(as_argument(sampler)), num_tasks
  if tasks_per_batch is not None:
    check_count("tasks_per_batch", tasks_per_batch)
  return chunks(sampler, size, num_tasks, tasks_per_batch), num_tasks
