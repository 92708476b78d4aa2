"""Tasks of unequal size: padded to one shape, with a weight of 0 for padding.

Padding repeats real examples, so that it is as finite as they are, and its weight keeps it out of losses, metrics,
minibatches and batch norm. Losses call a network with `PaddedInputs`: `networks.from_linen` masks its batch norms by
them, `networks.from_nnx` refuses batch norm, and `per_example` declares that another apply does not mix examples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.mistakes import NO_AXIS, short
from warpjax.types import Apply, Params, PyTree, Task


class Padded(NamedTuple):
  """Examples of which some may be padding: a batch `(x, y)` with a weight for each example.

  Attributes:
    x: Inputs, leaves `[examples, ...]`.
    y: Targets, leaves `[examples, ...]`.
    weights: `[examples]`: 0 for padding; a loss is the mean over the examples by these weights.
  """

  x: PyTree
  y: PyTree
  weights: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PaddedInputs:
  """The argument of a network for a padded batch, instead of x.

  It is not a tuple, so a pair of inputs is never mistaken for it.

  Attributes:
    x: Inputs, leaves `[examples, ...]`.
    weights: `[examples]`.
  """

  x: PyTree
  weights: jax.Array


def pad(x: PyTree, y: PyTree, size: int) -> Padded:
  """The examples, repeated from the first until there are `size`; the repeats have weight 0.

  Args:
    x: Inputs, leaves `[examples, ...]`.
    y: Targets, leaves `[examples, ...]`.
    size: The number of examples to return.

  Returns:
    A `Padded` of NumPy arrays, leaves `[size, ...]`.

  Raises:
    ValueError: for no examples, more than `size`, or leaves that disagree on their number.

  Example:
    >>> pad(np.array([5.0, 6.0]), np.array([0, 1]), 3)
    Padded(x=array([5., 6., 5.]), y=array([0, 1, 0]), weights=array([1., 1., 0.], dtype=float32))
  """
  count = _count(x, y)
  if not 1 <= count <= size:
    raise ValueError(f"a task must have 1 to size={size} examples to be padded; got {count}")
  rows = np.arange(size) % count
  x, y = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], (x, y))
  return Padded(x, y, (np.arange(size) < count).astype(np.float32))


def pad_tasks(tasks: Iterable[Task], *, support: int | None = None, query: int | None = None) -> Task:
  """Tasks of `(x, y)` pairs with any numbers of examples as one batch of tasks.

  Args:
    tasks: Each a `Task((x, y), (x, y))`; shapes agree but for the numbers of examples.
    support: Support examples of every task in the batch; None for those of the largest.
    query: Query examples, likewise.

  Returns:
    A `Task(Padded, Padded)` of NumPy arrays, leaves `[num_tasks, examples, ...]`. Give both numbers if several
    batches are to have the same shape and compile once.

  Raises:
    ValueError: for no task, a task that is not of `(x, y)` pairs or has more examples than `support` or `query`, or
      what `pad` refuses.

  Example:
    >>> task = lambda n: Task((np.ones((n, 2)), np.ones(n)), (np.ones((9, 2)), np.ones(9)))
    >>> batch = pad_tasks([task(3), task(5)])
    >>> batch.support.x.shape, batch.support.weights.tolist()
    ((2, 5, 2), [[1.0, 1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
  """
  if not (tasks := list(tasks)):
    raise ValueError("tasks must hold at least one task; got none")
  for index, task in enumerate(tasks):
    if not isinstance(task, Task) or not all(isinstance(part, tuple) and len(part) == 2 for part in task):
      raise ValueError(f"tasks must be Task((x, y), (x, y)); got another in place {index}")
  supports, queries = [task.support for task in tasks], [task.query for task in tasks]
  return Task(_stacked(supports, "support", support), _stacked(queries, "query", query))


def _stacked(pairs: Sequence[tuple[PyTree, PyTree]], name: str, size: int | None) -> Padded:
  counts = [_count(*pair) for pair in pairs]
  most = max(counts)
  if size is not None and most > size:
    index = counts.index(most)
    raise ValueError(f"{name}={size} must be at least the {name} examples of every task; task {index} has {most}")
  return jax.tree.map(lambda *leaves: np.stack(leaves), *[pad(x, y, size or most) for x, y in pairs])


def _count(x: PyTree, y: PyTree) -> int:
  shapes = [np.shape(leaf) for leaf in jax.tree.leaves((x, y))]
  if len({shape[:1] for shape in shapes}) != 1 or () in shapes:
    raise ValueError(f"x and y must have leaves [examples, ...] of as many examples; got the shapes {shapes}")
  return shapes[0][0]


def per_example(apply: Apply) -> Apply:
  """An apply that does not mix examples, for padded batches: it is called with x, without the weights.

  Args:
    apply: `(params, shared, x) -> outputs`; an example's output must not depend on other examples.

  Returns:
    The same for `PaddedInputs` as for x.

  Example:
    >>> apply = per_example(lambda params, shared, x: params * x)
    >>> apply(2.0, (), PaddedInputs(jnp.ones(2), jnp.array([1.0, 0.0]))).tolist()
    [2.0, 2.0]
  """

  def apply_each(params: Params, shared: PyTree, x: Any) -> Any:
    return apply(params, shared, x.x if isinstance(x, PaddedInputs) else x)

  return apply_each


def inputs(batch: PyTree) -> Any:
  """The input of a network from a batch: x of `(x, y)`, or `PaddedInputs`."""
  if not isinstance(batch, Padded):
    return batch[0]
  check_weights(batch)
  return PaddedInputs(batch.x, batch.weights)


def check_weights(batch: Padded) -> None:
  """Raises a ValueError for weights that are no array `[examples]`: others would broadcast to a wrong mean."""
  weights, of_y = batch.weights, [np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch.y)]
  hint = "" if np.ndim(weights) else NO_AXIS
  if not hasattr(weights, "dtype") or weights.ndim != 1:
    raise ValueError(f"the weights of a padded batch must be an array [examples]; got {short(weights)}{hint}")
  if any(shape != weights.shape for shape in of_y):
    raise ValueError(f"a padded batch must have a weight for each example; got {short(weights)} for y {of_y[0]}")


def unpack(batch: PyTree) -> tuple[Any, Any, jax.Array | None]:
  """A batch `(x, y)` or `Padded` as the network's input, the targets, and the weights or None.

  Raises:
    ValueError: if the batch is neither a pair nor a `Padded`, or its weights are not an array `[examples]`.
  """
  if isinstance(batch, Padded):
    return inputs(batch), batch.y, batch.weights
  return *pair_of(batch), None


def pair_of(batch: PyTree) -> tuple[Any, Any]:
  """x and y of a batch that is a pair; a dict of two would be unpacked to its keys."""
  if not isinstance(batch, tuple | list) or len(batch) != 2:
    hint = ""
    if isinstance(batch, tuple | list):
      hint = f" of {len(batch)}"
    elif isinstance(batch, dict) and len(batch) == 2:
      hint = "; pass (batch[{!r}], batch[{!r}])".format(*batch)
    raise ValueError(f"a batch must be a pair (x, y), or padding.Padded(x, y, weights); got {short(batch)}{hint}")
  return batch[0], batch[1]


def map_inputs(function: Callable[[PyTree], PyTree], batch: PyTree) -> PyTree:
  """The batch, padded or not, with `function` of its x."""
  if isinstance(batch, Padded):
    return batch._replace(x=function(batch.x))
  x, y = pair_of(batch)
  return function(x), y


def apply_to(apply: Apply, params: Params, shared: PyTree, x: Any) -> Any:
  """`apply`, with an error that has the remedy if it does not accept a padded batch."""
  try:
    return apply(params, shared, x)
  except (AttributeError, IndexError, TypeError, ValueError) as error:  # IndexError: a linen module's, of no shape
    is_about_it = not isinstance(error, ValueError) or PaddedInputs.__name__ in str(error)
    if isinstance(x, PaddedInputs) and is_about_it:
      error.add_note(
        "The batch is padded, so apply is given padding.PaddedInputs(x, weights). If it computes each example by "
        "itself, pass padding.per_example(apply); if not, it has to leave out what has weight 0."
      )
    raise


def mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
  """The mean over examples `[examples, ...]` and all further axes, by weight; None weighs all alike."""
  if weights is None:
    return jnp.mean(values)
  each = jnp.mean(values, axis=tuple(range(1, values.ndim)))
  weights = weights.astype(each.dtype)
  return jnp.sum(jnp.where(weights > 0, each, 0) * weights) / jnp.sum(weights)


def real_first(support: PyTree, order: jax.Array) -> tuple[jax.Array, Any]:
  """An order of the examples with padding last, and the number of real examples."""
  if not isinstance(support, Padded):
    return order, order.shape[0]
  real = jnp.asarray(support.weights) > 0
  return order[jnp.argsort(~real[order], stable=True)], jnp.sum(real)
