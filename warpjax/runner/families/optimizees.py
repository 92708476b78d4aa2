"""Optimisation problems for learned optimizers: quadratics, and the training of small networks on real images."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from warpjax import networks
from warpjax.checks import check_counts
from warpjax.runner.config.schema import OfProblem
from warpjax.runner.families import base
from warpjax.runner.families.base import Data, Spec
from warpjax.tasks import few_shot, optimizees
from warpjax.types import Apply, InnerLoop, LossFn, Params, PyTree, TaskSampler


def quadratics(dim: int = 10) -> Spec:
  """Random quadratics, each with a random start.

  Args:
    dim: Number of variables.
  """
  check_counts(dim=dim)
  sampler = optimizees.quadratics(dim)
  return Spec("loss", dim, lambda: Data(sampler, sampler, {}))


def trainings(
  data_dir: str | None,
  cache_dir: str | None,
  ways: OfProblem[int] = 10,
  hidden: int = 20,
  size: OfProblem[int] = 14,
  batch_size: int = 128,
  split: OfProblem[Literal["random_characters", "background_evaluation", "folders"]] = "random_characters",
  split_seed: int = 0,
) -> Spec:
  """The training of small networks on Omniglot, each on characters of its own.

  Args:
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.
    ways: Characters of a problem.
    hidden: Width of the hidden layer.
    size: Height and width of the images.
    batch_size: Examples of a step.
    split: The split of characters into training and test.
    split_seed: Seed of a random split.
  """
  check_counts(ways=ways, hidden=hidden, size=size, batch_size=batch_size)

  def load() -> Data:
    images, classes, notes = base.omniglot_parts(data_dir, cache_dir, split, split_seed, size=size)
    train, test = (_trainings(images[part], ways, hidden) for part in ("train", "test"))
    return Data(train, test, {"split": split, "split_sha256": classes.digest, "notes": notes})

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    del network, training
    loss_fn, batch_fn = optimizees.training_loss(ways, hidden), optimizees.training_batches(batch_size)
    return inner._replace(loss_fn=loss_fn, batch_fn=batch_fn)

  return Spec("loss", ways, load, loop=loop, own_batches=True)


def _trainings(images: np.ndarray, ways: int, hidden: int) -> TaskSampler:
  shots = images.shape[1] - 1  # an image task needs a query set; it gets one drawing
  return optimizees.trainings(few_shot.sampler(images, ways, shots, 1), ways, hidden)


def loss(apply: Apply) -> LossFn:
  """The loss of the metric "loss": the function adds the displacement to its own start."""
  del apply
  return optimizees.quadratic_loss


def displacement() -> networks.Network:
  """The adapted parameters are the displacement from the task's start; they begin at zero."""

  def init(key: jax.Array, start: jax.Array) -> tuple[Params, PyTree]:
    del key
    return jnp.zeros_like(start), ()

  return networks.Network(init, lambda params, shared, start: start + params)
