"""Functions to train learned optimizers on: random quadratics of any size.

A task is one function with a random start, the same in `support` and `query`. What adapts is the displacement from the
start, so that the start belongs to the task and `MetaParams.initial` is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from warpjax.types import Aux, Params, PyTree, Task, TaskSampler

START_SCALE = 0.01


class Quadratic(NamedTuple):
  """`|W theta - y|^2`: `start [dim]`, `matrix [dim, dim]`, `target [dim]`."""

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
  if dim < 1:
    raise ValueError(f"dim must be at least 1; got {dim}")

  def sample(key: jax.Array) -> Task:
    keys = jax.random.split(key, 3)
    start = START_SCALE * jax.random.normal(keys[0], (dim,))
    function = Quadratic(start, jax.random.normal(keys[1], (dim, dim)), jax.random.normal(keys[2], (dim,)))
    return Task(function, function)

  return jax.tree_util.Partial(sample)


def quadratic_loss(params: Params, shared: PyTree, batch: Quadratic) -> tuple[jax.Array, Aux]:
  """`|W (start + params) - y|^2`, a `LossFn` with no shared parameters and no aux."""
  del shared
  return jnp.sum((batch.matrix @ (batch.start + params) - batch.target) ** 2), {}
