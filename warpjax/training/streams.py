"""Tasks from a Python iterator: a generator, grain, tf.data, a PyTorch DataLoader, or anything else that yields them.

An item is a `Task` whose leaves `np.asarray` takes; none of those libraries is imported. A sampler on the device
(`training.many_steps`) is faster and resumes by itself; the state of an iterator has to be saved by its owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from warpjax.checks import check_count
from warpjax.mistakes import check_step
from warpjax.numerics import is_typed_key
from warpjax.training.task_batch import count_tasks
from warpjax.types import PyTree, Task


def steps(
  step: Callable[[Any, Task], tuple[Any, dict[str, jax.Array]]],
  state: Any,
  batches: Iterable[Task],
  *,
  tasks_per_step: int,
  num_steps: int | None = None,
  place: Callable[[PyTree], PyTree] = jax.device_put,
) -> Iterator[tuple[Any, dict[str, jax.Array]]]:
  """Iterates over meta-steps on an iterable of task batches.

  The next batch is read and placed on the device while the last step computes. When a step is yielded, exactly as many
  batches have been read as steps were made, so that the iterator's state can be saved with the yielded state.

  Args:
    step: `training.meta_step(...)`, or another step `(state, tasks) -> (state, metrics)`; it is compiled once.
    state: From `training.init`, or a restored one.
    batches: Yields `Task`s of leaves `[tasks_per_step, ...]`, all of the shapes and types of the first.
    tasks_per_step: Tasks in a batch.
    num_steps: The number of steps; None for one for each batch.
    place: Places a batch of NumPy arrays on the devices, e.g. with a sharding.

  Returns:
    An iterator of `(state, metrics)` after each step.

  Raises:
    ValueError: for a count below 1 or an argument that is not iterable; when iterated, for an item that is not a batch
      of `tasks_per_step` tasks (one task without its task axis, say), a batch of other shapes than the first, and an
      iterable that ends before `num_steps`, or with no batch at all.

  Example:
    >>> import jax.numpy as jnp, optax, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner, optimizer = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=1), optax.sgd(1.0)
    >>> state = wj.training.init(jax.random.key(0), inner.rule, jnp.array(0.0), (), optimizer)
    >>> step = wj.training.meta_step(wj.meta_gradients.unrolled(inner), optimizer)
    >>> batches = (wj.Task(*2 * [np.array([4.0, 8.0])]) for _ in range(3))
    >>> for state, metrics in steps(step, state, batches, tasks_per_step=2):
    ...   print(int(state.step), float(metrics["loss"]))
    1 5.0
    2 3.03125
    3 1.923828125
  """
  check_step(step)
  check_count("tasks_per_step", tasks_per_step)
  if num_steps is not None:
    check_count("num_steps", num_steps)
  run, items = step if hasattr(step, "lower") else jax.jit(step), _read(batches, "batches", tasks_per_step, num_steps)

  def iterate(state: Any) -> Iterator[tuple[Any, dict[str, jax.Array]]]:
    metrics: Any = None
    for batch in items:
      placed = place(batch)
      # One step in flight: several devices of a CPU can deadlock with more.
      jax.block_until_ready(metrics)
      state, metrics = run(state, placed)
      yield state, metrics

  return iterate(state)


def chunks(items: Iterable[Task], size: int, num_tasks: int, tasks_per_batch: int | None = None) -> Iterator[Task]:
  """The first `num_tasks` tasks of an iterable, as batches of `size`; the last is filled up with its own first task.

  Args:
    items: Yields single `Task`s, or batches of them.
    size: Tasks in a batch that is returned.
    num_tasks: The number of tasks; further tasks are not read, except for the rest of a batch.
    tasks_per_batch: Tasks in each item; None where an item is one task.

  Returns:
    An iterator of `Task`s of NumPy arrays, leaves `[size, ...]`.

  Raises:
    ValueError: if the argument is not iterable; when iterated, as for `steps`.

  Example:
    >>> [part.query.tolist() for part in chunks((Task(i, i) for i in range(9)), size=2, num_tasks=3)]
    [[0, 1], [2, 2]]
  """
  per_item = tasks_per_batch or 1
  read = _read(items, "sampler", tasks_per_batch, -(-num_tasks // per_item))
  row = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)
  each = (row(item, i) for item in read for i in range(per_item)) if tasks_per_batch else read

  def iterate() -> Iterator[Task]:
    for first in range(0, num_tasks, size):
      part = [next(each) for _ in range(min(size, num_tasks - first))]
      yield jax.tree.map(lambda *leaves: np.stack(leaves), *part, *[part[0]] * (size - len(part)))

  return iterate()


def _read(items: Iterable[Task], name: str, tasks_per_item: int | None, count: int | None) -> Iterator[Task]:
  """Checks each of `count` items, or of all of them, and makes NumPy arrays of its leaves."""
  try:
    iterator = iter(items)
  except TypeError:
    raise ValueError(f"{name} must be an iterable of Tasks; got {type(items).__name__}") from None

  def iterate() -> Iterator[Task]:
    first, index = None, 0
    while count is None or index < count:
      try:
        item = next(iterator)
      except StopIteration:
        break
      item = _arrays(item, f"{name}, item {index}")
      if tasks_per_item is not None:
        _check_axis(item, name, tasks_per_item)
      first = _shapes(item) if first is None else first
      _check_shapes(item, first, f"{name}, item {index}")
      yield item
      index += 1
    if index < (count or 1):
      wanted = "1 at least" if count is None else f"{count}"
      batched = "; if each item is a batch of tasks, pass tasks_per_batch=" if index and tasks_per_item is None else ""
      raise ValueError(f"{name} must yield as many items as are asked for, {wanted}; it ended after {index}{batched}")

  return iterate()


def _arrays(item: Any, name: str) -> Task:
  if not isinstance(item, Task):
    got = type(item).__name__
    raise ValueError(f"{name} must be a Task(support, query), as (Task(*pair) for pair in pairs) makes; got {got}")

  def array(path: Any, leaf: Any) -> Any:
    where = f"{name}{jax.tree_util.keystr(path)}"
    if isinstance(leaf, jax.Array):
      if is_typed_key(leaf):
        raise ValueError(f"{where} must not be a typed key; pass jax.random.key_data(key), and wrap it in the loss")
      return leaf
    try:
      values = np.asarray(leaf)
    except Exception as error:  # each library of a leaf has its own
      raise ValueError(f"{where} must be an array for np.asarray: {error}") from error
    if values.dtype.kind not in "biufcV":  # V: bfloat16 and its like
      raise ValueError(f"{where} must hold numbers; got {type(leaf).__name__} of {values.dtype}")
    return values

  return jax.tree_util.tree_map_with_path(array, item)


def _check_axis(item: Task, name: str, tasks_per_item: int) -> None:
  if (count := count_tasks(item, name)) != tasks_per_item:
    raise ValueError(
      f"{name} must yield {tasks_per_item} tasks at a time, leaves [{tasks_per_item}, ...]; got {count}. One task "
      "alone needs an axis of tasks in front; a last batch that is smaller has to be dropped"
    )


def _shapes(item: Task) -> PyTree:
  return jax.tree.map(lambda leaf: (leaf.dtype, leaf.shape), item)


def _check_shapes(item: Task, first: PyTree, name: str) -> None:
  """Raises a ValueError for a leaf that differs from the first item's; each such item would compile again."""
  is_pair = lambda node: isinstance(node, tuple) and len(node) == 2 and isinstance(node[0], np.dtype)
  now, before = (jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_pair) for tree in (_shapes(item), first))
  if [path for path, _ in now] != [path for path, _ in before]:
    raise ValueError(f"{name} must have the structure of the first item; got {jax.tree.structure(item)}")
  for (path, (dtype, shape)), (_, (first_dtype, first_shape)) in zip(now, before, strict=True):
    if (dtype, shape) != (first_dtype, first_shape):
      raise ValueError(
        f"{name} must have the shapes of the first item; got {dtype}{list(shape)} for {jax.tree_util.keystr(path)}, "
        f"which was {first_dtype}{list(first_shape)}. padding.pad_tasks(tasks, support=, query=) gives all one size"
      )
