"""Text in chunks: a task is a stretch of bytes, and inner step k predicts the bytes of chunk k.

It is a stream by its batch functions: inner step k sees chunk k, and the query batch after k steps is chunk k, before
the step on it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.checks import check_count, check_counts
from warpjax.losses import classification
from warpjax.types import Apply, Aux, Batch, LossFn, Params, PyTree, Task, TaskSampler

NUM_BYTES = 256


class Chunks(NamedTuple):
  """How a stretch of text is cut.

  Attributes:
    num_chunks: Chunks of a task.
    chunk: Bytes of a chunk, which are predicted.
    context: Bytes before a chunk that the network sees too.
  """

  num_chunks: int
  chunk: int
  context: int

  @property
  def length(self) -> int:
    """Bytes of a task: those of all chunks, the first one's context, and the one that its first byte follows."""
    return self.num_chunks * self.chunk + self.context + 1

  def batch_fn(self, key: jax.Array, support: PyTree, step: Any, params: Params, shared: PyTree) -> Batch:
    """A `BatchFn`: inner step k sees chunk k, `(x [context + chunk], y [chunk])`; the last one from then on."""
    del key, params, shared
    first = jnp.minimum(step, self.num_chunks - 1) * self.chunk
    x = jax.lax.dynamic_slice_in_dim(support[0], first, self.context + self.chunk)
    return x, jax.lax.dynamic_slice_in_dim(support[0], first + self.context + 1, self.chunk)

  def query_batch_fn(self, key: jax.Array, task: Task, params: Params, shared: PyTree, step: Any) -> Batch:
    """A `QueryBatchFn` with a step: after k steps, the unseen chunk k; after all chunks, the last one again."""
    return self.batch_fn(key, task.query, step, params, shared)


def sampler(text: Any, chunks: Chunks) -> TaskSampler:
  """Stretches of a text, each from a random place.

  Args:
    text: Its bytes, `[length]`, uint8.
    chunks: How a stretch is cut.

  Returns:
    A sampler of `Task((bytes,), (bytes,))`, int32, `[chunks.length]`; support and query are the same bytes.

  Raises:
    ValueError: when a count is below 1, or the text is shorter than a task.

  Example:
    >>> text = np.frombuffer(b"In the beginning was the word.", np.uint8)
    >>> chunks = Chunks(num_chunks=3, chunk=4, context=2)
    >>> task = sampler(text, chunks)(jax.random.key(0))
    >>> task.support[0].shape, [part.shape for part in chunks.batch_fn(None, task.support, 1, (), ())]
    ((15,), [(6,), (4,)])
  """
  _check(text, chunks)

  def sample(text: jax.Array, key: jax.Array) -> Task:
    first = jax.random.randint(key, (), 0, text.shape[0] - chunks.length + 1)
    return _task(jax.lax.dynamic_slice_in_dim(text, first, chunks.length))

  return jax.tree_util.Partial(sample, jnp.asarray(text))


def windows(text: Any, chunks: Chunks) -> Task:
  """The stretches that tile a text: each byte is predicted once, but for the first context and the rest at the end.

  Args:
    text: Its bytes, `[length]`, uint8.
    chunks: How a stretch is cut.

  Returns:
    Stored tasks, leaves `[n, chunks.length]`.

  Raises:
    ValueError: as for `sampler`.

  Example:
    >>> text = np.arange(30, dtype=np.uint8)
    >>> windows(text, Chunks(num_chunks=3, chunk=4, context=2)).support[0][:, [0, -1]].tolist()
    [[0, 14], [12, 26]]
  """
  _check(text, chunks)
  apart = chunks.num_chunks * chunks.chunk
  firsts = np.arange(0, len(text) - chunks.length + 1, apart)
  return _task(np.asarray(text)[firsts[:, None] + np.arange(chunks.length)])


def next_byte(apply: Apply) -> LossFn:
  """Mean cross-entropy of a chunk's bytes, in nats; aux holds `bits_per_byte` and `accuracy`.

  Args:
    apply: `(params, shared, x [length]) -> logits [length, 256]`, causal.

  Returns:
    A loss on batches `(x [context + chunk], y [chunk])`: the last outputs predict the chunk.

  Example:
    >>> loss_fn = next_byte(lambda params, shared, x: jnp.zeros((*x.shape, 256)))
    >>> loss, aux = loss_fn((), (), (jnp.zeros(6, jnp.int32), jnp.zeros(4, jnp.int32)))
    >>> round(float(aux["bits_per_byte"]), 4)
    8.0
  """

  def loss_fn(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
    x, y = batch
    last = lambda params, shared, x: apply(params, shared, x)[-y.shape[0] :]
    loss, aux = classification(last)(params, shared, (x, y))
    return loss, {**aux, "bits_per_byte": loss / math.log(2)}

  return loss_fn


def _task(text: Any) -> Task:
  x = jnp.asarray(text, jnp.int32)
  return Task((x,), (x,))


def _check(text: Any, chunks: Chunks) -> None:
  check_counts(num_chunks=chunks.num_chunks, chunk=chunks.chunk)
  check_count("context", chunks.context, least=0)
  if len(text) < chunks.length:
    raise ValueError(f"text must have at least the {chunks.length} bytes of a task; got {len(text)}")
