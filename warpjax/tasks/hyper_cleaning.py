"""Data hyper-cleaning: a weight for each training example is learned, so that wrong labels lose theirs.

The inner problem is training on `mean_i sigmoid(w_i) l_i`, w the parameters `shared["weights"]`, l_i the cross-entropy
of example i. The outer loss is that of a clean validation set. A task's support is `(x, y, numbers)`, where `numbers`
index the weights; its query is `(x, y, clean)`, where `clean` tells which training labels are right, for the F1 alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from warpjax import losses
from warpjax.types import Apply, Aux, Batch, LossFn, Params, PyTree, Task


def problem(
  key: jax.Array,
  x: jax.Array,
  y: jax.Array,
  *,
  num_train: int = 5000,
  num_val: int = 5000,
  corrupted: float = 0.5,
  always_changed: bool = True,
  num_classes: int = 10,
) -> Task:
  """The training examples with wrong labels as support, the validation examples as query.

  Args:
    key: Draws the examples of each part, and the labels that are replaced.
    x: Inputs, `[examples, ...]`.
    y: Integer labels, `[examples]`.
    num_train: Training examples.
    num_val: Validation examples, none of them for training.
    corrupted: Share of the training labels that are replaced.
    always_changed: Whether a replaced label is always another class. In released codes it may be the true one.
    num_classes: Number of classes.

  Returns:
    A `Task`: support `(x, y, numbers)`, query `(x, y, clean)`. `clean` is False where a label was replaced, even if by
    itself.

  Raises:
    ValueError: if there are not enough examples, or the share is not between 0 and 1.

  Example:
    >>> (x, y, numbers), (_, _, clean) = problem(
    ...   jax.random.key(0), jnp.ones((8, 3)), jnp.zeros(8, int), num_train=4, num_val=4
    ... )
    >>> x.shape, numbers.tolist(), bool(((y == 0) == clean).all()), int(clean.sum())
    ((4, 3), [0, 1, 2, 3], True, 2)

  Reference:
    Franceschi, Donini, Frasconi, Pontil 2017, arXiv 1703.01785, section 5.1.
  """
  if num_train + num_val > len(y):
    raise ValueError(f"num_train + num_val must be at most the examples, {len(y)}; got {num_train} + {num_val}")
  if not 0 <= corrupted <= 1:
    raise ValueError(f"corrupted must be between 0 and 1; got {corrupted!r}")
  order_key, label_key = jax.random.split(key)
  order = jax.random.permutation(order_key, len(y))
  train, val = order[:num_train], order[num_train : num_train + num_val]
  count = int(corrupted * num_train)
  clean = jnp.arange(num_train) >= count  # the order is random
  others = jax.random.randint(label_key, (num_train,), 1 if always_changed else 0, num_classes)
  labels = jnp.where(clean, y[train], (y[train] + others) % num_classes)
  return Task((x[train], labels, jnp.arange(num_train)), (x[val], y[val], clean))


def training_loss(apply: Apply) -> LossFn:
  """`mean_i sigmoid(w_i) l_i` on batches `(x, y, numbers)`, w from `shared["weights"]`; aux is empty.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`.

  Returns:
    A loss, whose `shared` has the entry `weights`, `[training examples]`.
  """

  def loss_fn(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
    x, y, numbers = batch
    each = optax.softmax_cross_entropy_with_integer_labels(apply(params, shared, x), y)
    return jnp.mean(jax.nn.sigmoid(shared["weights"][numbers]) * each), {}

  return loss_fn


def query_loss(apply: Apply) -> LossFn:
  """Mean cross-entropy on batches `(x, y, clean)`; aux holds `accuracy`, and the `f1` of the weights against `clean`.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`.

  Returns:
    A loss, whose `shared` has the entry `weights`.
  """
  of_examples = losses.classification(apply)

  def loss_fn(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
    x, y, clean = batch
    value, aux = of_examples(params, shared, (x, y))
    return value, {**aux, "f1": f1(shared["weights"], clean)}

  return loss_fn


def f1(weights: jax.Array, clean: jax.Array) -> jax.Array:
  """The F1 score of calling an example clean if its weight is at least 0, as released codes have it.

  Args:
    weights: `[examples]`, before the sigmoid; 0 at the start, so that all examples are called clean.
    clean: Which are.

  Returns:
    `2 P R / (P + R)`, 0 without a true positive.

  Example:
    >>> float(f1(jnp.array([1.0, -1.0, 2.0]), jnp.array([True, False, False])).round(3))
    0.667
  """
  called = weights >= 0
  hits = jnp.sum(called & clean)
  return 2 * hits / jnp.maximum(jnp.sum(called) + jnp.sum(clean), 1)
