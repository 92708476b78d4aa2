"""Multi-shot Omniglot: one alphabet is one task, all of its images in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.checks import check_choice
from warpjax.datasets import splits
from warpjax.types import Task, TaskSampler

Query = Literal["held_out", "support"]


def alphabet_images(
  images: Any, names: Sequence[str], alphabets: Sequence[str], *, ways: int = 20, seed: int = 0
) -> np.ndarray:
  """The images of `ways` characters of each alphabet, drawn once: the characters, and the order of their examples.

  Args:
    images: uint8 `[classes, examples, height, width, channels]`.
    names: The class of each row, `"Alphabet/character"`.
    alphabets: The alphabets to take, such as `Split.train` of `splits.multi_shot_alphabets`.
    ways: Characters of each.
    seed: Seed of the draw; an alphabet's draw does not depend on which others are taken.

  Returns:
    uint8 `[len(alphabets), ways, examples, height, width, channels]`.

  Raises:
    ValueError: when an alphabet has fewer than `ways` characters.
  """
  drawings = []
  for alphabet in alphabets:
    rows = [i for name, i in sorted(zip(names, range(len(names)), strict=True)) if splits.alphabet_of(name) == alphabet]
    if not 1 <= ways <= len(rows):
      raise ValueError(f"ways must be 1 to the {len(rows)} characters of {alphabet}; got {ways}")
    rng = np.random.default_rng([seed, *alphabet.encode()])
    chosen = rng.permutation(rows)[:ways]
    drawings.append(np.stack([np.asarray(images[row])[rng.permutation(images.shape[1])] for row in chosen]))
  return np.stack(drawings)


def sampler(images: Any, *, held_out: int = 5, query: Query = "held_out") -> TaskSampler:
  """One whole alphabet at random: `ways` classes, 15 training and 5 held-out drawings of each.

  Args:
    images: uint8 `[alphabets, ways, examples, height, width, channels]`, as `alphabet_images` returns it.
    held_out: The last examples of each class, for the query.
    query: `"held_out"`, or `"support"` for the training images in both fields: WarpGrad's meta-training, whose two
      losses see minibatches of the same training images.

  Returns:
    A sampler of `Task(support=(x, y), query=(x, y))`; x stays uint8, `[ways * 15, height, width, channels]`, so that a
    batch function only converts (and augments) the images of a step; y is int32.

  Raises:
    ValueError: for images of another rank or dtype, held_out that leaves no training image, or an unknown query.

  Example:
    >>> import jax, numpy as np
    >>> task = sampler(np.zeros((10, 20, 20, 28, 28, 1), np.uint8))(jax.random.key(0))
    >>> task.support[0].shape, task.query[0].shape
    ((300, 28, 28, 1), (100, 28, 28, 1))

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.2.
  """
  _check(images, held_out, query)

  def sample(images: jax.Array, key: jax.Array) -> Task:
    return _task(images[jax.random.randint(key, (), 0, images.shape[0])], held_out, query)

  return jax.tree_util.Partial(sample, jnp.asarray(images))


def all_tasks(images: Any, *, held_out: int = 5) -> Task:
  """Every alphabet once, leaves `[alphabets, ...]`, for an evaluation.

  Args:
    images: As for `sampler`.
    held_out: As for `sampler`.

  Returns:
    A `Task` with a leading alphabet axis.

  Raises:
    ValueError: as `sampler`.
  """
  _check(images, held_out, "held_out")
  # As one program: each operation by itself would be compiled.
  return jax.jit(jax.vmap(lambda alphabet: _task(alphabet, held_out, "held_out")))(jnp.asarray(images))


def _task(alphabet: jax.Array, held_out: int, query: Query) -> Task:
  def flat(part: jax.Array) -> tuple[jax.Array, jax.Array]:
    labels = jnp.repeat(jnp.arange(part.shape[0], dtype=jnp.int32), part.shape[1])
    return part.reshape(-1, *part.shape[2:]), labels

  support = flat(alphabet[:, :-held_out])
  return Task(support, support if query == "support" else flat(alphabet[:, -held_out:]))


def _check(images: Any, held_out: int, query: str) -> None:
  shape, dtype = jnp.shape(images), jnp.result_type(images)
  if len(shape) != 6 or dtype != jnp.uint8:
    raise ValueError(
      f"images must be uint8 [alphabets, ways, examples, height, width, channels]; got {dtype} of shape {shape}"
    )
  if not 1 <= held_out < shape[2]:
    raise ValueError(f"held_out must be 1 to {shape[2] - 1}, to leave a training image; got {held_out}")
  check_choice("query", query, Query)
