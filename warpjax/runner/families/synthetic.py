"""WarpGrad's two synthetic task families: sequences of sine waves, and surfaces over the plane."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from warpjax import networks, tasks
from warpjax.checks import check_counts
from warpjax.runner.config.schema import OfTraining
from warpjax.runner.families.base import Data, Spec
from warpjax.types import InnerLoop, LossFn, Params, PyTree


def continual(
  subtasks: int = 5,
  points: int = 20,
  steps_each: int = 20,
  train_subtasks: OfTraining[int] = 0,
) -> Spec:
  """Sine waves in sequence, each over its own inputs.

  Args:
    subtasks: Waves of a test task.
    points: Examples of a wave.
    steps_each: Inner steps on a wave.
    train_subtasks: Waves of a training task; 0 for `subtasks`.
  """
  check_counts(subtasks=subtasks, points=points, steps_each=steps_each)
  of = tasks.continual

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    most = (train_subtasks or subtasks) * steps_each
    if training and inner.num_steps > most:
      raise ValueError(f"config.inner.num_steps must be at most {most}, sub-tasks by steps; got {inner.num_steps}.")
    return inner._replace(
      batch_fn=of.in_sequence(steps_each), query_batch_fn=of.all_subtasks, query_loss_fn=of.weighted_loss(network.apply)
    )

  train = of.sampler(train_subtasks or subtasks, points=points, ranges=subtasks)
  return Spec("mse", 1, lambda: Data(train, of.sampler(subtasks, points=points), {}), loop=loop, own_batches=True)


def surfaces(starts: int = 10) -> Spec:
  """Random surfaces, each with several random starts.

  Args:
    starts: Starts on a surface.
  """
  check_counts(starts=starts)
  sampler = tasks.surfaces.sampler(starts)
  return Spec("height", 2, lambda: Data(sampler, sampler, {}))


def surface_loss(apply: Callable[..., jax.Array]) -> LossFn:
  """The loss of `plane_warp`, whose warp has no task parameters."""
  return tasks.surfaces.loss(lambda shared, theta: apply((), shared, theta))


def plane_warp(hidden: int = 30, warped: bool = True) -> networks.Network:
  """An explicit warp of the plane; tasks adapt the displacement from their starts.

  Args:
    hidden: Width of the warp's hidden layer.
    warped: Whether to use a warp; False is plain gradient descent.
  """

  def init(key: jax.Array, starts: jax.Array) -> tuple[Params, PyTree]:
    return jnp.zeros(starts.shape, starts.dtype), tasks.surfaces.init_warp(key, hidden) if warped else ()

  def apply(params: Params, shared: PyTree, theta: jax.Array) -> jax.Array:
    del params
    return tasks.surfaces.residual_warp(shared, theta) if warped else theta

  return networks.Network(init, apply)
