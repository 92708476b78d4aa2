"""Bilevel problems, each a single task: hyper-cleaning, the training on MNIST-1D, and quadratics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from warpjax import datasets, networks
from warpjax.checks import check_counts
from warpjax.networks import initializers
from warpjax.runner.config.schema import OfProblem
from warpjax.runner.families.base import Data, Spec
from warpjax.tasks import bilevel_quadratic, few_shot, mnist1d_training
from warpjax.tasks import hyper_cleaning as cleaning
from warpjax.types import InnerLoop, Params, PyTree, Task, TaskSampler


def hyper_cleaning(
  data_dir: str | None,
  train: OfProblem[int] = 5000,
  val: OfProblem[int] = 5000,
  corrupted: OfProblem[float] = 0.5,
  always_changed: OfProblem[bool] = True,
  test: OfProblem[int] = 10000,
  split_seed: int = 0,
) -> Spec:
  """Data hyper-cleaning on Fashion-MNIST.

  Args:
    data_dir: Folder of the four idx files, or of prepared data.
    train: Training examples.
    val: Validation examples, whose loss is the outer loss.
    corrupted: Share of the training labels that are replaced.
    always_changed: Whether a replaced label is always another class; in released codes it may be the true one.
    test: Test examples.
    split_seed: Draws the examples of each part and the wrong labels.
  """
  check_counts(train=train, val=val, test=test)

  def load() -> Data:
    files = datasets.fashion_mnist.load(data_dir)
    x, test_x = (few_shot.to_unit(jnp.asarray(part.reshape(len(part), -1))) for part in (files.train_x, files.test_x))
    task = cleaning.problem(
      jax.random.key(split_seed),
      x,
      jnp.asarray(files.train_y),
      corrupted=corrupted,
      always_changed=always_changed,
      num_train=train,
      num_val=val,
    )
    tested = Task(task.support, (test_x[:test], jnp.asarray(files.test_y[:test]), task.query[2]))
    return Data(_always(task), _stored(tested), {"examples": [train, val, len(tested.query[0])]}, _stored(task))

  return Spec("accuracy", 10, load, loop=_cleaning_loop, own_batches=True)


def _cleaning_loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
  del training
  return inner._replace(loss_fn=cleaning.training_loss(network.apply), query_loss_fn=cleaning.query_loss(network.apply))


def _always(task: Task) -> TaskSampler:
  return jax.tree_util.Partial(lambda task, key: task, task)


def _stored(task: Task) -> Task:
  return jax.tree.map(lambda leaf: leaf[None], task)


def example_weights(num_outputs: int, hidden: int = 0) -> networks.Network:
  """A linear classifier, or one with a layer of sigmoid units; its `shared` has a weight for each training example.

  Args:
    num_outputs: Number of classes.
    hidden: Sigmoid units; 0 for a linear classifier.
  """
  module = networks.MLP(features=(hidden,) if hidden else (), num_outputs=num_outputs, activation=jax.nn.sigmoid)
  network = networks.from_linen(module)

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    params, _ = network.init(key, x[:1])
    return params, {"weights": jnp.zeros(x.shape[0])}

  return networks.Network(init, lambda params, shared, x: network.apply(params, (), x))


def mnist1d(examples: OfProblem[int] = 5000, batch_size: OfProblem[int] = 50, data_seed: int = 42) -> Spec:
  """The training of a network on MNIST-1D in minibatches, in their stored order; four fifths of the examples train.

  Args:
    examples: Examples of both parts.
    batch_size: Examples of an inner step.
    data_seed: Seed of the generator.
  """
  check_counts(examples=examples, batch_size=batch_size)

  def load() -> Data:
    made = datasets.mnist1d.load(examples, data_seed)
    train, test = (tuple(map(jnp.asarray, part)) for part in (made[:2], made[2:]))
    return Data(_always(Task(train, train)), _stored(Task(train, test)), {"examples": [len(train[0]), len(test[0])]})

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    del network, training
    return inner._replace(batch_fn=mnist1d_training.in_order(batch_size))

  return Spec("accuracy", 10, load, loop=loop, own_batches=True)


def learned_activation(
  num_outputs: int, features: Sequence[int] = (128,), hidden: int = 100, scale: float = 0.2
) -> networks.Network:
  """An MLP whose activation is `elu(x) + scale f(x)`; `shared` is f, a network of one layer of tanh units.

  Args:
    num_outputs: Number of classes.
    features: Width of each hidden layer.
    hidden: Units of f.
    scale: Weight of f.
  """
  inits: Any = {"kernel_init": initializers.torch_uniform, "bias_init": initializers.torch_bias}
  f = networks.from_linen(networks.MLP((hidden,), activation="tanh", **inits))

  def network(shared: PyTree) -> networks.Network:
    activation = lambda x: jax.nn.elu(x) + scale * f.apply(shared, (), x[..., None])[..., 0]
    return networks.from_linen(networks.MLP(features, num_outputs, activation, **inits))

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    own, of_f = jax.random.split(key)
    shared, _ = f.init(of_f, jnp.ones((1, 1)))
    return network(shared).init(own, x)[0], shared

  return networks.Network(init, lambda params, shared, x: network(shared).apply(params, (), x))


def quadratics(dim: OfProblem[int] = 20, outer_dim: OfProblem[int] = 10, condition_number: float = 10.0) -> Spec:
  """A bilevel quadratic, whose hypergradient is known in closed form.

  Args:
    dim: Size of the inner variable.
    outer_dim: Size of the outer variable.
    condition_number: Condition number of the inner problem.
  """
  sampler = bilevel_quadratic.sampler(dim, outer_dim, condition_number=condition_number)

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    del network, training
    return inner._replace(loss_fn=bilevel_quadratic.loss, query_loss_fn=bilevel_quadratic.query_loss)

  def load() -> Data:
    task = sampler(jax.random.key(0))
    return Data(_always(task), _stored(task), {})

  return Spec("loss", outer_dim, load, loop=loop, own_batches=True)


def variables(num_outputs: int) -> networks.Network:
  """The variables of a bilevel quadratic: the inner ones adapt, and `shared` is the outer ones; both start at 0.

  Args:
    num_outputs: Size of the outer variable.
  """

  def init(key: jax.Array, curvature: jax.Array) -> tuple[Params, PyTree]:
    del key
    return jnp.zeros(curvature.shape[0], curvature.dtype), jnp.zeros(num_outputs, curvature.dtype)

  return networks.Network(init, lambda params, shared, x: params)
