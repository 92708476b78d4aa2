"""Continual sine regression: the sub-tasks of a task come one after another, each over a range of inputs of its own.

It is continual by its batch functions: inner step k sees sub-task `k // steps_each`, and the query batch has the
sub-tasks seen so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.meta_gradients.trajectory import Contribution
from warpjax.numerics import take
from warpjax.problem import Problem
from warpjax.types import Aux, Batch, BatchFn, InnerLoop, InnerStep, LossFn, Params, PyTree, Task, TaskSampler

NUM_SUBTASKS = 5
DOMAIN = (-5.0, 5.0)

StepQueryFn = Callable[[jax.Array, Task, jax.Array, Params, PyTree], Batch]
"""`(key, task, step, params, shared) -> batch`: a query that depends on the inner step."""


class Weighted(NamedTuple):
  """Examples of every sub-task, and how much each counts.

  Attributes:
    x: `[subtasks, points, 1]`.
    y: `[subtasks, points, 1]`.
    weights: `[subtasks]`, summing to one.
  """

  x: jax.Array
  y: jax.Array
  weights: jax.Array


def sampler(num_subtasks: int = NUM_SUBTASKS, *, points: int = 20, ranges: int | None = None) -> TaskSampler:
  """Sequences of sine waves, `y = A sin(x + b)`, each over its own part of [-5, 5], in a random order.

  The paper does not give the ranges; A is in [0.1, 5] and b in [0, pi], as in MAML's sine waves.

  Args:
    num_subtasks: Sub-tasks in a sequence.
    points: Points of each sub-task in the support, and as many others in the query.
    ranges: Number of equal parts of [-5, 5]; None for the number of sub-tasks. With more, some are not used.

  Returns:
    A sampler of `Task(support=(x, y), query=(x, y))`, x and y `[num_subtasks, points, 1]` in the order of the sequence.

  Raises:
    ValueError: when a count is below 1, or there are fewer ranges than sub-tasks.

  Example:
    >>> task = sampler(5, points=20)(jax.random.key(0))
    >>> task.support[0].shape
    (5, 20, 1)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.3 and appendix H.
  """
  parts = num_subtasks if ranges is None else ranges
  for name, count in (("num_subtasks", num_subtasks), ("points", points)):
    check_count(name, count)
  if parts < num_subtasks:
    raise ValueError(f"ranges must be at least num_subtasks, {num_subtasks}; got {ranges}")
  width = (DOMAIN[1] - DOMAIN[0]) / parts

  def sample(key: jax.Array) -> Task:
    keys = jax.random.split(key, 4)
    amplitude = jax.random.uniform(keys[0], (num_subtasks, 1, 1), float, 0.1, 5.0)
    phase = jax.random.uniform(keys[1], (num_subtasks, 1, 1), float, 0.0, math.pi)
    order = jax.random.permutation(keys[2], parts)[:num_subtasks]
    left = DOMAIN[0] + width * order.astype(float)[:, None, None]
    x = left + width * jax.random.uniform(keys[3], (num_subtasks, 2 * points, 1), float)
    y = amplitude * jnp.sin(x + phase)
    return Task((x[:, :points], y[:, :points]), (x[:, points:], y[:, points:]))

  return jax.tree_util.Partial(sample)


def in_sequence(steps_each: int) -> BatchFn:
  """A batch_fn: inner step k sees sub-task `k // steps_each`, and the last one from then on.

  Args:
    steps_each: Inner steps on each sub-task.

  Returns:
    A `BatchFn` over supports with a leading axis of sub-tasks.

  Raises:
    ValueError: when `steps_each` is below 1.
  """
  check_count("steps_each", steps_each)

  def batch_fn(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    del key, params, shared
    return jax.tree.map(lambda leaf: take(leaf, _current(step, steps_each, leaf.shape[0])), support)

  return batch_fn


def seen_so_far(steps_each: int) -> StepQueryFn:
  """The query of the current and all previous sub-tasks, each counting the same.

  Args:
    steps_each: As for `in_sequence`.

  Returns:
    A step-dependent query of `Weighted` batches, for `query_at_step`.

  Raises:
    ValueError: when `steps_each` is below 1.
  """
  check_count("steps_each", steps_each)

  def query(key: jax.Array, task: Task, step: jax.Array, params: Params, shared: PyTree) -> Weighted:
    del key, params, shared
    x, y = task.query
    current = _current(step, steps_each, x.shape[0])
    weights = jnp.where(jnp.arange(x.shape[0]) <= current, 1.0 / (current + 1.0), 0.0).astype(y.dtype)
    return Weighted(x, y, weights)

  return query


def all_subtasks(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Weighted:
  """A query_batch_fn: every sub-task, each counting the same; what has been seen at the end of the sequence."""
  del key, params, shared
  x, y = task.query
  return Weighted(x, y, jnp.full(x.shape[0], 1.0 / x.shape[0], y.dtype))


def weighted_loss(apply: Callable[[Params, PyTree, jax.Array], jax.Array]) -> LossFn:
  """`sum_i weights_i * mse_i`, the query loss for `Weighted` batches.

  Args:
    apply: `(params, shared, x [points, 1]) -> predictions [points, 1]`.

  Returns:
    A `LossFn`; aux holds `mse`, the loss itself, and `mse_0`, `mse_1`, ..., that of each sub-task.
  """

  def loss_fn(params: Params, shared: PyTree, batch: Weighted) -> tuple[jax.Array, Aux]:
    errors = jnp.mean((jax.vmap(lambda x: apply(params, shared, x))(batch.x) - batch.y) ** 2, axis=(1, 2))
    loss = jnp.sum(batch.weights * errors)
    return loss, {"mse": loss, **{f"mse_{i}": errors[i] for i in range(errors.shape[0])}}

  return loss_fn


def query_at_step(contribution: Contribution, query_fn: StepQueryFn) -> Contribution:
  """A contribution whose meta-loss at the point of step k sees `query_fn(key, task, k, params, shared)`.

  Args:
    contribution: One that reads the query at each step, such as `warp()`. What others read of it at the end, such as
      `implicit`, stays the query of `InnerLoop.query_batch_fn`.
    query_fn: Such as `seen_so_far(20)`.

  Returns:
    A contribution with the same `init` and `finish`.

  Example:
    >>> from warpjax.meta_gradients import warp
    >>> isinstance(query_at_step(warp(), seen_so_far(20)), Contribution)
    True
  """

  def step(problem: Problem, carry: PyTree, seen: InnerStep) -> PyTree:
    query: Any = lambda key, task, params, shared: query_fn(key, task, seen.number, params, shared)
    inner: InnerLoop = problem.inner._replace(query_batch_fn=query)
    return contribution.step(problem._replace(inner=inner), carry, seen)

  return contribution._replace(step=step)


def _current(step: Any, steps_each: int, num_subtasks: int) -> jax.Array:
  return jnp.minimum(step // steps_each, num_subtasks - 1)
