"""Checks of tasks: examples that leak from one set into another, and query losses that mix examples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.diagnostics.report import Check
from warpjax.problem import Problem, query_loss_of, with_step
from warpjax.training.task_batch import count_tasks
from warpjax.types import InnerLoop, MetaParams, PyTree, Task


def query_batch(inner: InnerLoop, meta_params: MetaParams, task: Task, key: jax.Array) -> Check:
  """The query loss of a batch against the mean of its halves': equal unless an example's loss depends on the others."""
  initial, shared = meta_params.initial, meta_params.shared
  loss_fn = query_loss_of(inner)
  batch = with_step(inner.query_batch_fn)(key, Problem(inner, meta_params, task, key).task, initial, shared, 0)
  examples = batch.query if isinstance(batch, Task) else batch  # a Task: the support is there for its statistics
  counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(examples)}
  half = min(counts)[0] // 2 if len(counts) == 1 and () not in counts else 0
  if not half:
    return Check("query batch", "skipped", "the query batch is not two or more examples along a leading axis")

  def loss(first: int, last: int) -> float:
    part = jax.tree.map(lambda leaf: leaf[first:last], examples)
    return float(loss_fn(initial, shared, batch._replace(query=part) if isinstance(batch, Task) else part)[0])

  whole, parts = loss(0, 2 * half), (loss(0, half), loss(half, 2 * half))
  tolerance = 1e-9 if jnp.result_type(*jax.tree.leaves(initial)) == jnp.float64 else 1e-4
  if any(np.isclose(whole, scale * sum(parts), rtol=tolerance, atol=1e-12) for scale in (0.5, 1.0)):
    return Check("query batch", "passed", "the loss of a query example does not depend on the other query examples")
  return Check(
    "query batch",
    "note",
    f"transductive: the query loss is {whole:.4g} on {2 * half} examples and {sum(parts) / 2:.4g} on halves of them, "
    "so query examples see each other (batch norm with the batch's statistics?); say so with every result",
  )


def keys(tasks: Task) -> Check:
  """Whether the tasks, each drawn with a key of its own, differ from one another."""
  count = count_tasks(tasks)
  if count < 2:
    return Check("keys", "skipped", "a comparison needs at least two tasks")
  if any(jnp.any(leaf != leaf[:1]) for leaf in jax.tree.leaves(tasks)):
    return Check("keys", "passed", f"the {count} tasks are not all the same")
  return Check(
    "keys", "note", f"all {count} tasks are the same; if they should differ, draw them with the key, not with NumPy"
  )


def examples(tasks: Task) -> Check:
  """Examples that are in the support and in the query set of one task."""
  support, query = _inputs(tasks.support), _inputs(tasks.query)
  if support is None or query is None or support.shape[2:] != query.shape[2:]:
    return Check("examples", "skipped", "support and query are not examples of one kind, `(x [examples, ...], y)`")
  shared = [len(_rows(s) & _rows(q)) for s, q in zip(support, query, strict=True)]
  bad, count = sum(map(bool, shared)), len(shared)
  if bad:
    return Check("examples", "warning", f"{bad} of {count} tasks have an example in both support and query set")
  return Check("examples", "passed", f"no example is in both support and query set, in {count} tasks")


def classes(tasks: Task) -> Check:
  """Query labels that the support of the task does not have."""
  support, query = _labels(tasks.support), _labels(tasks.query)
  if support is None or query is None:
    return Check("classes", "skipped", "support and query have no integer labels, `(x, y [examples])`")
  bad = sum(bool(set(q.tolist()) - set(s.tolist())) for s, q in zip(support, query, strict=True))
  if bad:
    return Check("classes", "warning", f"{bad} of {len(query)} tasks ask for a class that their support does not show")
  return Check("classes", "passed", f"every query class is in its support, in {len(query)} tasks")


def held_out(tasks: Task, others: Task | None) -> Check:
  """Examples of training tasks that are also in held-out tasks, for square images also rotated: a leaked class."""
  if others is None:
    return Check("held out", "skipped", "pass held_out= to look for training examples in evaluation tasks")
  sets = [[_inputs(part) for part in each] for each in (tasks, others)]
  if any(part is None for each in sets for part in each):
    return Check("held out", "skipped", "tasks are not examples, `(x [examples, ...], y)`")
  seen = set().union(*(_rows(turned) for part in sets[0] for task in part for turned in _turns(task)))
  unseen = set().union(*(_rows(task) for part in sets[1] for task in part))
  if both := len(seen & unseen):
    return Check("held out", "warning", f"{both} of {len(unseen)} examples of held-out tasks are training examples")
  return Check("held out", "passed", f"none of {len(unseen)} examples of held-out tasks is a training example")


def _inputs(part: PyTree) -> Any:
  """The inputs `[tasks, examples, ...]` of pairs `(x, y)`, or None."""
  x = part[0] if isinstance(part, tuple) and len(part) == 2 else None
  return np.asarray(x) if x is not None and hasattr(x, "ndim") and x.ndim >= 3 else None


def _labels(part: PyTree) -> Any:
  y = part[1] if isinstance(part, tuple) and len(part) == 2 else None
  are_labels = y is not None and hasattr(y, "dtype") and jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 2
  return np.asarray(y) if are_labels else None


def _turns(examples: np.ndarray) -> list[np.ndarray]:
  """Square images `[examples, size, size, ...]` in their four quarter turns, since turns can make classes."""
  if examples.ndim < 3 or examples.shape[1] != examples.shape[2]:
    return [examples]
  return [np.rot90(examples, turns, axes=(1, 2)) for turns in range(4)]


def _rows(examples: np.ndarray) -> set[bytes]:
  return {row.tobytes() for row in examples}
