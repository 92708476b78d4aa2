"""Functions to train learned optimizers on: random quadratics, and the training of small networks on images.

A task is one function with a random start, the same in `support` and `query`. The displacement from the start
adapts, so that the start belongs to the task and `MetaParams.initial` is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from warpjax.adaptation import minibatch
from warpjax.checks import check_count
from warpjax.losses import classification
from warpjax.training.task_batch import as_argument
from warpjax.types import Aux, BatchFn, LossFn, Params, PyTree, Task, TaskSampler

START_SCALE = 0.01


class Quadratic(NamedTuple):
  """The function `|W theta - y|^2`.

  Attributes:
    start: Where theta starts, `[dim]`.
    matrix: W, `[dim, dim]`.
    target: y, `[dim]`.
  """

  start: jax.Array
  matrix: jax.Array
  target: jax.Array


def quadratics(dim: int = 10) -> TaskSampler:
  """Quadratics with the elements of W and y from N(0, 1), and a start from N(0, 0.01^2).

  Args:
    dim: Size of theta.

  Returns:
    A sampler of `Task(function, function)`, each a `Quadratic`.

  Raises:
    ValueError: for a dim below 1.

  Example:
    >>> quadratics(4)(jax.random.key(0)).support.matrix.shape
    (4, 4)

  Reference:
    Andrychowicz et al. 2016, arXiv 1606.04474, section 3.1; the start's scale is its released code's.
  """
  check_count("dim", dim)

  def sample(key: jax.Array) -> Task:
    keys = jax.random.split(key, 3)
    start = START_SCALE * jax.random.normal(keys[0], (dim,))
    function = Quadratic(start, jax.random.normal(keys[1], (dim, dim)), jax.random.normal(keys[2], (dim,)))
    return Task(function, function)

  return jax.tree_util.Partial(sample)


def quadratic_loss(params: Params, shared: PyTree, batch: Quadratic) -> tuple[jax.Array, Aux]:
  """`|W (start + params) - y|^2`, a `LossFn` with no shared parameters and no aux.

  Args:
    params: theta less the start, `[dim]`.
    shared: Not used.
    batch: The function.

  Returns:
    `(loss, {})`.

  Example:
    >>> function = Quadratic(start=jnp.ones(1), matrix=jnp.full((1, 1), 2.0), target=jnp.ones(1))
    >>> float(quadratic_loss(jnp.ones(1), (), function)[0])
    9.0
  """
  del shared
  return jnp.sum((batch.matrix @ (batch.start + params) - batch.target) ** 2), {}


class Training(NamedTuple):
  """A network to train, and its data.

  Attributes:
    start: The initial weights in one vector, `[size]`.
    x: Images, `[n, pixels]`.
    y: Labels, `[n]`.
  """

  start: jax.Array
  x: jax.Array
  y: jax.Array


def trainings(sampler: TaskSampler, ways: int, hidden: int = 20) -> TaskSampler:
  """The training of networks of one hidden layer, each on a classification task of its own.

  Args:
    sampler: Sampler of tasks of images; a network is trained on the support set.
    ways: Classes of a task.
    hidden: Units.

  Returns:
    A sampler of `Task(training, training)`, each a `Training` from weights and biases of N(0, 0.01^2).

  Raises:
    ValueError: for a count below 1.

  Example:
    >>> from warpjax.tasks import few_shot
    >>> images = few_shot.sampler(jnp.zeros((4, 5, 2, 2, 1), jnp.uint8), ways=3, shots=4, queries=1)
    >>> task = trainings(images, ways=3, hidden=5)(jax.random.key(0)).support
    >>> task.start.shape, task.x.shape  # 4 * 5 + 5 + 5 * 3 + 3
    ((43,), (12, 4))

  Reference:
    Andrychowicz et al. 2016, arXiv 1606.04474, section 3.2, on MNIST; the start's scale is its released code's.
  """
  check_count("ways", ways)
  check_count("hidden", hidden)

  def sample(images: TaskSampler, key: jax.Array) -> Task:
    image_key, start_key = jax.random.split(key)
    x, y = images(image_key).support
    x = x.reshape(len(x), -1)
    size = (x.shape[1] + 1) * hidden + (hidden + 1) * ways
    training = Training(START_SCALE * jax.random.normal(start_key, (size,)), x, y)
    return Task(training, training)

  return jax.tree_util.Partial(sample, as_argument(sampler))


def training_loss(ways: int, hidden: int = 20) -> LossFn:
  """The mean cross-entropy of `softmax(sigmoid(x W1 + b1) W2 + b2)`, whose weights are `start + params`.

  Args:
    ways: Classes.
    hidden: Units.

  Returns:
    A `LossFn` with no shared parameters; its aux has `accuracy`.
  """

  def apply(weights: jax.Array, shared: PyTree, x: jax.Array) -> jax.Array:
    del shared
    first, second = jnp.split(weights, [(x.shape[1] + 1) * hidden])
    return _affine(jax.nn.sigmoid(_affine(x, first.reshape(-1, hidden))), second.reshape(hidden + 1, ways))

  loss_fn = classification(apply)
  return lambda params, shared, batch: loss_fn(batch.start + params, shared, (batch.x, batch.y))


def training_batches(size: int) -> BatchFn:
  """A batch_fn for `Training`: `size` images at each step, drawn anew; the start is unchanged."""
  draw = minibatch(size)

  def batch_fn(key: jax.Array, support: Training, step: jax.Array, params: Params, shared: PyTree) -> Training:
    return Training(support.start, *draw(key, (support.x, support.y), step, params, shared))

  return batch_fn


def _affine(x: jax.Array, weights_and_bias: jax.Array) -> jax.Array:
  return x @ weights_and_bias[:-1] + weights_and_bias[-1]
