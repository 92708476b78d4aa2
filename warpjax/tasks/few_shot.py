"""N-way K-shot classification tasks, drawn on the device from one uint8 array.

The array is in a `jax.tree_util.Partial`: if the sampler is passed to a jitted function, the images are an argument of
the program and not a constant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.checks import check_choice, check_count
from warpjax.types import PyTree, Task, TaskSampler

Rotations = Literal["none", "per_class", "as_classes"]
Preprocess = Callable[[jax.Array], jax.Array]


def to_unit(images: jax.Array) -> jax.Array:
  """`x / 255`: uint8 to [0, 1] in the default float dtype."""
  return images.astype(float) / 255


def as_in_batches(x: jax.Array) -> jax.Array:
  """The input of a network from a task's x: `to_unit` for images of bytes, anything else unchanged."""
  return to_unit(x) if x.dtype == jnp.uint8 else x


def sampler(
  images: Any,
  ways: int,
  shots: int,
  queries: int,
  *,
  rotations: Rotations = "none",
  preprocess: Preprocess = to_unit,
  counts: Sequence[int] | None = None,
  on_device: bool = True,
) -> TaskSampler:
  """N-way K-shot tasks: classes without replacement, then examples of each class without replacement.

  Args:
    images: uint8 `[classes, examples, height, width, channels]`, the classes of one split.
    ways: Classes of a task.
    shots: Support examples of each class.
    queries: Query examples of each class, none of them in the support.
    rotations: `"none"`; `"per_class"`, each class of a task turned by a random multiple of 90 degrees (MAML);
      `"as_classes"`, rotated images are additional classes, four times as many (Reptile). Nothing is copied.
    preprocess: Applied last, to the uint8 images of a task, `[n, height, width, channels]`.
    counts: Examples of each class, the first of its row; None if every row is full.
    on_device: Whether the images are placed on the device. False keeps them on the host, e.g. in a memory-mapped
      file, and a callback fetches a task's images: for sets that are larger than the device's memory.

  Returns:
    A sampler of `Task(support=(x, y), query=(x, y))`, x `[ways * shots, height, width, channels]` and
    `[ways * queries, ...]`, y int32 in `0..ways - 1`. Labels are assigned at random; examples are in random order.

  Raises:
    ValueError: for images of another rank or dtype, counts below 1, ways above the classes there are, shots +
      queries above the examples there are, or an unknown rotation.

  Example:
    >>> import jax, numpy as np
    >>> images = np.zeros((30, 20, 28, 28, 1), np.uint8)
    >>> draw = sampler(images, ways=5, shots=1, queries=15)
    >>> tasks = jax.jit(lambda draw, keys: jax.vmap(draw)(keys))(draw, jax.random.split(jax.random.key(0), 32))
    >>> tasks.support[0].shape, tasks.query[1].shape
    ((32, 5, 28, 28, 1), (32, 75))

  Reference:
    Vinyals et al. 2016, arXiv 1606.04080, section 4.1; Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.2.
  """
  _check(images, ways, shots, queries, rotations, counts)
  num_classes, num_examples = np.shape(images)[:2]
  numbers = None if counts is None or set(counts) == {num_examples} else jnp.asarray(counts, jnp.int32)

  def sample(images: Images, numbers: jax.Array | None, key: jax.Array) -> Task:
    uniforms = _uniforms(key, (2, ways), (ways,), (ways, 2, shots + queries), (ways * shots,), (ways * queries,))
    for_classes, for_turns, for_examples, *for_order = uniforms
    if rotations == "as_classes":
      classes, turns = jnp.divmod(_choose(for_classes, 4 * num_classes), 4)
    else:
      classes, turns = _choose(for_classes, num_classes), (4 * for_turns).astype(jnp.int32)
    totals = jnp.full(ways, num_examples, jnp.int32) if numbers is None else numbers[classes]
    examples = jax.vmap(_choose)(for_examples, totals)

    def gather(uniforms: jax.Array, examples: jax.Array) -> tuple[jax.Array, jax.Array]:
      label, column = jnp.divmod(jnp.argsort(uniforms), examples.shape[1])
      x = images(classes[label], examples[label, column])
      return preprocess(x if rotations == "none" else _turn(x, turns[label])), label.astype(jnp.int32)

    return Task(gather(for_order[0], examples[:, :shots]), gather(for_order[1], examples[:, shots:]))

  return jax.tree_util.Partial(sample, _on_device(images) if on_device else _on_host(images), numbers)


Images = Callable[[jax.Array, jax.Array], jax.Array]
"""`(classes [n], examples [n]) -> uint8 [n, height, width, channels]`; a pytree: its arrays are arguments of a jit."""


def _on_device(images: Any) -> Images:
  return jax.tree_util.Partial(_rows, jnp.asarray(images))


def _rows(array: jax.Array, classes: jax.Array, examples: jax.Array) -> jax.Array:
  return array[classes, examples]


def _on_host(images: np.ndarray) -> Images:
  def fetch(classes: np.ndarray, examples: np.ndarray) -> np.ndarray:
    return np.asarray(images[np.asarray(classes), np.asarray(examples)])

  def gather(classes: jax.Array, examples: jax.Array) -> jax.Array:
    shape = jax.ShapeDtypeStruct((*classes.shape, *images.shape[2:]), jnp.uint8)
    return jax.pure_callback(fetch, shape, classes, examples, vmap_method="expand_dims")

  return jax.tree_util.Partial(gather)


def tasks_from_arrays(x: PyTree, y: PyTree, *, shots: int, queries: int) -> TaskSampler:
  """A sampler of stored tasks: draws one of them, then splits its examples at random.

  Args:
    x: Inputs, leaves `[tasks, examples, ...]`.
    y: Targets, leaves `[tasks, examples, ...]`.
    shots: Support examples of a task.
    queries: Query examples of a task, none of them in the support.

  Returns:
    A sampler of `Task(support=(x, y), query=(x, y))` with leaves `[shots, ...]` and `[queries, ...]`.

  Raises:
    ValueError: when the leaves disagree on tasks and examples, or shots + queries exceed the examples.

  Example:
    >>> import jax, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 20, 3))
    >>> draw = tasks_from_arrays(x, x.sum(-1), shots=5, queries=10)
    >>> [leaf.shape for leaf in jax.tree.leaves(draw(jax.random.key(0)))]
    [(5, 3), (5,), (10, 3), (10,)]
  """
  shapes = {jnp.shape(leaf)[:2] for leaf in jax.tree.leaves((x, y))}
  if len(shapes) != 1 or len(min(shapes)) != 2:
    raise ValueError(f"x and y must share the leading axes [tasks, examples]; got {sorted(shapes)}")
  num_tasks, num_examples = min(shapes)
  if not num_tasks:
    raise ValueError("x and y must hold at least one task; got none")
  _check_counts("tasks", num_tasks, 1, num_examples, shots, queries)

  def sample(arrays: PyTree, key: jax.Array) -> Task:
    task_key, example_key = jax.random.split(key)
    task = jax.random.randint(task_key, (), 0, num_tasks)
    examples = choose(example_key, num_examples, shots + queries)
    take = lambda index: jax.tree.map(lambda leaf: leaf[task, index], arrays)
    return Task(take(examples[:shots]), take(examples[shots:]))

  return jax.tree_util.Partial(sample, jax.tree.map(jnp.asarray, (x, y)))


def choose(key: jax.Array, total: int, count: int) -> jax.Array:
  """`count` different numbers below `total`, in random order: `[count]`, int32."""
  return _choose(_uniforms(key, (2, count))[0], total)


def _choose(uniforms: jax.Array, total: Any) -> jax.Array:
  """Floyd's algorithm, then a shuffle, from `[2, count]` numbers in [0, 1).

  Its work does not grow with `total`: sorting 4800 numbers to use 20 of them took 77 ms for 32 tasks on two CPU
  cores, this takes 0.2 ms.
  """
  count = uniforms.shape[1]
  last = jnp.arange(count, dtype=jnp.int32) + (total - count)
  draws = jnp.minimum(uniforms[0] * (last + 1), last).astype(jnp.int32)

  def insert(i: jax.Array, chosen: jax.Array) -> jax.Array:
    return chosen.at[i].set(jnp.where((chosen == draws[i]).any(), last[i], draws[i]))

  chosen = jax.lax.fori_loop(0, count, insert, jnp.full((count,), -1, jnp.int32))
  return chosen[jnp.argsort(uniforms[1])]


def _uniforms(key: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
  """Independent float32 numbers in [0, 1) of these shapes, from one draw: every draw costs half a second to compile."""
  sizes = [math.prod(shape) for shape in shapes]
  flat = jax.random.uniform(key, (sum(sizes),), jnp.float32)
  parts = jnp.split(flat, list(itertools.accumulate(sizes))[:-1])
  return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _turn(images: jax.Array, turns: jax.Array) -> jax.Array:
  """Each of `[n, h, h, c]` turned by its own multiple of 90 degrees, as `numpy.rot90` does; two selections."""
  turns = turns[:, None, None, None]
  images = jnp.where(turns >= 2, images[:, ::-1, ::-1], images)
  return jnp.where(turns % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)


def _check(images: Any, ways: int, shots: int, queries: int, rotations: str, counts: Sequence[int] | None) -> None:
  shape = jnp.shape(images)
  if len(shape) != 5:
    raise ValueError(f"images must be [classes, examples, height, width, channels]; got shape {shape}")
  if jnp.result_type(images) != jnp.uint8:
    raise ValueError(f"images must be uint8; got {jnp.result_type(images)}")
  check_choice("rotations", rotations, Rotations)
  if rotations != "none" and shape[2] != shape[3]:
    raise ValueError(f"rotations={rotations!r} needs square images; got {shape[2]} x {shape[3]}")
  if counts is not None and (len(counts) != shape[0] or max(counts) > shape[1]):
    raise ValueError(f"counts must be {shape[0]} numbers of at most {shape[1]}; got {len(counts)} up to {max(counts)}")
  fewest = min(counts) if counts is not None else shape[1]
  _check_counts("classes", shape[0] * (4 if rotations == "as_classes" else 1), ways, fewest, shots, queries)


def _check_counts(groups: str, num_groups: int, ways: int, num_examples: int, shots: int, queries: int) -> None:
  for name, count in (("ways", ways), ("shots", shots), ("queries", queries)):
    check_count(name, count)
  if ways > num_groups:
    raise ValueError(f"ways must be at most the {num_groups} {groups} there are; got {ways}")
  if shots + queries > num_examples:
    raise ValueError(f"shots + queries must be at most the {num_examples} examples there are; got {shots} + {queries}")
