"""The training of a network on one data set as a task, whose hyper-parameters are meta-learned.

The network's start is fixed, and the step size of training is learned from the training loss.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.numerics import take
from warpjax.types import Batch, BatchFn, Params, PyTree


def in_order(size: int) -> BatchFn:
  """A batch_fn: the next `size` examples in their stored order, from the start again at the end.

  Args:
    size: Examples of a step.

  Returns:
    A `BatchFn`; its batches have leaves `[size, ...]`.

  Raises:
    ValueError: when `size` is below 1.

  Example:
    >>> in_order(3)(jax.random.key(0), jnp.arange(4), 1, (), ()).tolist()
    [3, 0, 1]
  """
  check_count("size", size)

  def batch_fn(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    del key, params, shared
    count = jax.tree.leaves(support)[0].shape[0]
    return take(support, (step * size + jnp.arange(size)) % count)

  return batch_fn
