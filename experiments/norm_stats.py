"""Which batch statistics a result is under: the choices of `config.eval.norm_stats`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax

from experiments.datasets import Data
from warpjax import losses, networks, step_statistics
from warpjax.norm_stats import Readout, by_step, query_loss, running
from warpjax.types import InnerLoop, LossFn, MetaParams, PyTree, QueryBatchFn, TaskSampler

NormStats = Literal["transductive", "support", "support_plus_one", "running", "per_step"]
NONE = "none"
PER_STEP_TASKS = 200


MakeReadout = Callable[[MetaParams, TaskSampler, jax.Array], Readout]
"""`(meta_params, training tasks, key) -> Readout`, for statistics that belong to what was trained."""


def check(name: str, allowed: Sequence[str]) -> None:
  """Raises a ValueError for a choice that the tasks do not allow."""
  if name not in allowed:
    raise ValueError(f"config.eval.norm_stats must be one of {', '.join(map(repr, allowed))} here; got {name!r}.")


def readouts(
  names: Sequence[str],
  inner: InnerLoop,
  network: networks.Network,
  loss_of: Callable[..., LossFn],
  whole_task: QueryBatchFn,
) -> dict[str, Readout]:
  """The readout of each choice.

  Args:
    names: Choices.
    inner: The test inner loop.
    network: One that has batch norm.
    loss_of: `(apply) -> loss`.
    whole_task: What the choices see that need the support set besides the query set.

  Returns:
    Readouts by name.
  """
  apply_with_stats = network.apply_with_stats
  assert apply_with_stats is not None  # it has batch norm

  def seeing_all(loss_fn: LossFn) -> Readout:
    return query_loss(inner._replace(query_batch_fn=whole_task, query_loss_fn=loss_fn))

  choices = {
    "transductive": query_loss,
    "support": lambda: seeing_all(losses.support(apply_with_stats, loss_of)),
    "support_plus_one": lambda: seeing_all(losses.support_plus_one(network.apply)),
    "running": lambda: running(apply_with_stats, loss_of),
  }
  return {name: choices[name]() for name in names if name in choices}


def per_step(
  inner: InnerLoop, network: networks.Network, loss_of: Callable[..., LossFn], num_steps: int
) -> MakeReadout:
  """`(meta_params, training tasks, key) -> Readout`: statistics by step, of `PER_STEP_TASKS` training tasks."""
  apply_with_stats = network.apply_with_stats
  assert apply_with_stats is not None  # it has batch norm

  collect = step_statistics.collector(inner, apply_with_stats, num_tasks=PER_STEP_TASKS, num_steps=num_steps)

  def readout(meta_params: MetaParams, sampler: TaskSampler, key: jax.Array) -> Readout:
    return by_step(apply_with_stats, loss_of, collect(meta_params, sampler, key))

  return readout


def has_norm(network: networks.Network, data: Data) -> bool:
  """Whether the network has a batch norm, found by tracing alone."""
  apply_with_stats = network.apply_with_stats
  if apply_with_stats is None:
    return False

  def stats() -> PyTree:
    key = jax.random.key(0)
    x = data.train(key).support[0]
    return apply_with_stats(*network.init(key, x), None, x)[1]

  return bool(jax.tree.leaves(jax.eval_shape(stats)))
