"""Batch statistics by inner step, averaged over training tasks, for MAML++'s per-step batch norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_count, check_key
from warpjax.meta_gradients.from_start import Start, begun
from warpjax.padding import inputs
from warpjax.problem import Problem
from warpjax.training.task_batch import as_argument, default_task_chunk, map_tasks, sample_tasks
from warpjax.types import ApplyWithStats, InnerLoop, InnerStep, MetaParams, Params, PyTree, TaskSampler


def collect(
  inner: InnerLoop,
  meta_params: MetaParams,
  sampler: TaskSampler,
  key: jax.Array,
  apply_with_stats: ApplyWithStats,
  *,
  num_tasks: int,
  num_steps: int | None = None,
  start: Start | None = None,
  task_chunk: int | None = None,
) -> PyTree:
  """The mean over tasks of the batch statistics that the support batch has at each point 0..K.

  `stats_k = mean over tasks of stats(params_k, batch_k)`. MAML++ keeps a moving average of these while it trains. Here
  they are computed after training, so every meta-gradient can use them and no checkpoint has to hold them.

  Args:
    inner: The inner loop.
    meta_params: The meta-learned parameters.
    sampler: Draws one training task.
    key: Task i is a function of (key, i).
    apply_with_stats: A `Network`'s.
    num_tasks: Over how many tasks.
    num_steps: K; None for the inner loop's own.
    start: What each task begins with, as for `evaluate`; drawn parameters by `meta_gradients.drawn`.
    task_chunk: Vmapped tasks.

  Returns:
    Statistics of leaves `[K + 1, ...]`, for `readouts.by_step`.

  Raises:
    ValueError: when a count is below 1.

  Example:
    >>> import warpjax as wj
    >>> apply = lambda w, shared, stats, x: (w * x, {"mean": jnp.mean(w * x)})
    >>> inner = wj.InnerLoop(wj.losses.regression(lambda w, shared, x: w * x), wj.rules.sgd(0.25), num_steps=2)
    >>> sampler = lambda key: wj.Task(support=(jnp.ones(1), jnp.full(1, 2.0)), query=())
    >>> collect(inner, wj.MetaParams(jnp.array(0.0)), sampler, jax.random.key(0), apply, num_tasks=3)["mean"].tolist()
    [0.0, 1.0, 1.5]

  Reference:
    Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, section 4.
  """
  run = collector(inner, apply_with_stats, num_tasks=num_tasks, num_steps=num_steps, start=start, task_chunk=task_chunk)
  return run(meta_params, sampler, key)


def collector(
  inner: InnerLoop,
  apply_with_stats: ApplyWithStats,
  *,
  num_tasks: int,
  num_steps: int | None = None,
  start: Start | None = None,
  task_chunk: int | None = None,
) -> Callable[[MetaParams, TaskSampler, jax.Array], PyTree]:
  """`collect` for many meta-parameters: compiled once, `(meta_params, sampler, key) -> statistics`.

  Args:
    inner: As in `collect`, like all arguments below.
    apply_with_stats: A `Network`'s.
    num_tasks: Over how many tasks.
    num_steps: K; None for the inner loop's own.
    start: What each task begins with, as for `evaluate`; drawn parameters by `meta_gradients.drawn`.
    task_chunk: Vmapped tasks.

  Returns:
    The function.

  Raises:
    ValueError: when a count is below 1.

  Example:
    >>> import warpjax as wj
    >>> apply = lambda w, shared, stats, x: (w * x, {"mean": jnp.mean(w * x)})
    >>> inner = wj.InnerLoop(wj.losses.regression(lambda w, shared, x: w * x), wj.rules.sgd(0.25), num_steps=1)
    >>> sampler = lambda key: wj.Task(support=(jnp.ones(1), jnp.full(1, 2.0)), query=())
    >>> run = collector(inner, apply, num_tasks=3)
    >>> [run(wj.MetaParams(jnp.array(w)), sampler, jax.random.key(0))["mean"].tolist() for w in (0.0, 1.0)]
    [[0.0, 1.0], [1.0, 1.5]]
  """
  check_count("num_tasks", num_tasks)
  per_task = partial(_of_task, inner, start, apply_with_stats, check_inner(inner, num_steps))

  @jax.jit
  def mean(meta_params: MetaParams, sampler: TaskSampler, key: jax.Array) -> PyTree:
    tasks = sample_tasks(sampler, jax.random.fold_in(key, 0), num_tasks)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(key, 1), i))(jnp.arange(num_tasks))
    chunk = min(num_tasks, task_chunk or default_task_chunk(tasks))
    stats = map_tasks(lambda args: per_task(meta_params, *args), (tasks, keys), chunk)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), stats)

  def run(meta_params: MetaParams, sampler: TaskSampler, key: jax.Array) -> PyTree:
    check_key(key)
    return mean(meta_params, as_argument(sampler), key)

  return run


def _of_task(
  inner: InnerLoop,
  start: Start | None,
  apply_with_stats: ApplyWithStats,
  last: int,
  meta_params: MetaParams,
  task: Any,
  key: jax.Array,
) -> PyTree:
  problem = begun(Problem(inner, meta_params, task, key), start)

  def at(params: Params, index: Any) -> PyTree:
    return apply_with_stats(params, problem.meta_params.shared, None, inputs(problem.batch(params, index)))[1]

  def observe(step: InnerStep) -> PyTree:
    return at(step.state.params, step.number)

  final, _, seen = run_steps(problem.step, problem.start(), last=last, observe=observe)
  return jax.tree.map(lambda steps, end: jnp.concatenate([steps, end[None]]), seen, at(final.params, last))
