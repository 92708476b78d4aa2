"""Batch statistics: `config.eval.norm_stats` for a result, `config.train_norm_stats` for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from warpjax import losses, networks
from warpjax.evaluation import step_statistics
from warpjax.evaluation.readouts import Readout, by_step, query_loss, running
from warpjax.meta_gradients import Start
from warpjax.problem import with_step
from warpjax.tasks import few_shot
from warpjax.types import InnerLoop, LossFn, MetaParams, Params, PyTree, QueryBatchFn, Task, TaskSampler

NormStats = Literal["transductive", "support", "support_plus_one", "running", "per_step"]
TrainNormStats = Literal["transductive", "support", "support_plus_one"]
ALL, IN_TRAINING = get_args(NormStats), get_args(TrainNormStats)
NONE = "none"
PER_STEP_TASKS = 200


MakeReadout = Callable[[InnerLoop, MetaParams, TaskSampler, jax.Array], Readout]
"""`(test loop, meta_params, training tasks, key) -> Readout`, for statistics of the trained parameters."""


def check(setting: str, name: str, allowed: Sequence[str]) -> None:
  """Raises a ValueError for a choice that the tasks do not allow."""
  if name not in allowed:
    raise ValueError(f"{setting} must be one of {', '.join(map(repr, allowed))} for these data; got {name!r}.")


def in_training(
  name: TrainNormStats, inner: InnerLoop, network: networks.Network, loss_of: Callable[..., LossFn]
) -> InnerLoop:
  """The training loop with the query loss of a choice, whose support batch is that of the first inner step.

  Args:
    name: The choice; ignored for a network without batch norm.
    inner: The training loop.
    network: The network of the loss.
    loss_of: `(apply) -> loss`.

  Returns:
    The inner loop; unchanged for "transductive".

  Raises:
    ValueError: For "support_plus_one" of a network with dropout, whose keys belong to a batch.
  """
  apply_with_stats = network.apply_with_stats
  if name == "transductive" or apply_with_stats is None:
    return inner
  if name == "support_plus_one" and network.takes_key:
    raise ValueError("config.train_norm_stats must not be 'support_plus_one' for a network with dropout.")
  alone = losses.support_plus_one(network.apply, loss_of)
  loss_fn = losses.support(apply_with_stats, loss_of) if name == "support" else alone

  def batch(key: jax.Array, task: Task, params: Params, shared: PyTree, step: Any = 0) -> Task:
    support = inner.batch_fn(key, task.support, jnp.int32(0), params, shared)
    return Task(support, with_step(inner.query_batch_fn)(key, task, params, shared, step))

  return inner._replace(query_batch_fn=batch, query_loss_fn=loss_fn)


def readouts(
  names: Sequence[str],
  inner: InnerLoop,
  network: networks.Network,
  loss_of: Callable[..., LossFn],
  whole_task: QueryBatchFn,
) -> dict[str, Readout]:
  """The readout of each choice.

  Args:
    names: The choices.
    inner: The inner loop of test tasks.
    network: A network with batch norm.
    loss_of: `(apply) -> loss`.
    whole_task: The task for choices that use the support set besides the query set.

  Returns:
    Readouts by name.
  """
  apply_with_stats = network.apply_with_stats
  assert apply_with_stats is not None  # it has batch norm

  def seeing_all(loss_fn: LossFn) -> Readout:
    return query_loss(inner._replace(query_batch_fn=whole_task, query_loss_fn=loss_fn))

  choices = {
    "transductive": lambda: query_loss(inner),
    "support": lambda: seeing_all(losses.support(apply_with_stats, loss_of)),
    "support_plus_one": lambda: seeing_all(losses.support_plus_one(network.apply, loss_of)),
    "running": lambda: running(apply_with_stats, loss_of),
  }
  return {name: choices[name]() for name in names if name in choices}


def per_step(
  network: networks.Network, loss_of: Callable[..., LossFn], num_steps: int, start: Start | None = None
) -> MakeReadout:
  """Makes readouts with statistics of each step, over `PER_STEP_TASKS` training tasks; compiled for the first loop."""
  apply_with_stats = network.apply_with_stats
  assert apply_with_stats is not None  # it has batch norm

  collect: Callable[..., PyTree] | None = None

  def readout(inner: InnerLoop, meta_params: MetaParams, sampler: TaskSampler, key: jax.Array) -> Readout:
    nonlocal collect
    if collect is None:
      collect = step_statistics.collector(
        inner, apply_with_stats, num_tasks=PER_STEP_TASKS, num_steps=num_steps, start=start
      )
    return by_step(apply_with_stats, loss_of, collect(meta_params, sampler, key))

  return readout


def has_norm(network: networks.Network, sampler: TaskSampler) -> bool:
  """Whether the network has a batch norm; it is traced on a task of the sampler, not run."""
  apply_with_stats = network.apply_with_stats
  if apply_with_stats is None:
    return False

  def stats() -> PyTree:
    key = jax.random.key(0)
    x = few_shot.as_in_batches(sampler(key).support[0])
    return apply_with_stats(*network.init(key, x), None, x)[1]

  return bool(jax.tree.leaves(jax.eval_shape(stats)))
