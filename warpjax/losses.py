"""Losses as warpjax takes them: `(params, shared, batch) -> (mean over the batch, aux)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax import padding
from warpjax.mistakes import APPLY, check_batch_axis, check_labels, check_takes, check_targets
from warpjax.types import Apply, ApplyWithStats, Aux, LossFn, Params, PyTree, Task

# For `support_plus_one`, which has one batch for each query example: 100 batches of 301 in a multi-shot task.
_EXAMPLES_AT_ONCE = 2048


def classification(apply: Apply) -> LossFn:
  """Mean softmax cross-entropy with integer labels; aux holds `accuracy`, a fraction.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`, or `[batch, length, classes]` of sequences.

  Returns:
    A loss on batches `(x, y)`, y integers `[batch]` or `[batch, length]`, or `padding.Padded(x, y, weights)`: the mean
    is over what has a weight, and so is the accuracy. All losses of this module take padded batches.

  Raises:
    ValueError: when `apply` is not a function of three arguments; from the loss, for labels of another shape, or that
      are not integers or classes.

  Example:
    >>> import jax.numpy as jnp
    >>> loss_fn = classification(lambda params, shared, x: params * x)
    >>> loss, aux = loss_fn(0.0, (), (jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)))
    >>> round(float(loss), 4)
    0.6931
  """

  check_takes("apply", apply, APPLY)

  def loss_fn(params: Params, shared: PyTree, batch: PyTree) -> tuple[jax.Array, Aux]:
    x, y, weights = padding.unpack(batch)
    check_targets(y)
    logits = padding.apply_to(apply, params, shared, x)
    return _cross_entropy(logits, y, weights), {"accuracy": _accuracy(logits, y, weights)}

  return loss_fn


def margins(apply: Apply) -> LossFn:
  """`classification` whose aux also holds `margins`, `p(class) - p(label)`, for `evaluation.ensemble`.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`.

  Returns:
    A loss on batches `(x, y)`; `margins` are `[batch, classes]`, 0 at the label; all -inf for padding.

  Raises:
    ValueError: as for `classification`.

  Example:
    >>> import jax.numpy as jnp
    >>> loss, aux = margins(lambda params, shared, x: x)((), (), (jnp.log(jnp.array([[0.75, 0.25]])), jnp.array([1])))
    >>> aux["margins"].round(2).tolist()
    [[0.5, 0.0]]
  """

  check_takes("apply", apply, APPLY)

  def loss_fn(params: Params, shared: PyTree, batch: PyTree) -> tuple[jax.Array, Aux]:
    x, y, weights = padding.unpack(batch)
    check_targets(y)
    logits = padding.apply_to(apply, params, shared, x)
    loss = _cross_entropy(logits, y, weights)
    probabilities = jax.nn.softmax(_at_least_float32(logits))
    behind = probabilities - jnp.take_along_axis(probabilities, y[:, None], axis=-1)
    # Compiled, a number less itself may be a rounding away from 0.
    margins = jnp.where(jax.nn.one_hot(y, behind.shape[-1], dtype=bool), 0, behind)
    if weights is not None:
      margins = jnp.where(weights[:, None] > 0, margins, -jnp.inf)
    return loss, {"accuracy": _accuracy(logits, y, weights), "margins": margins}

  return loss_fn


def regression(apply: Apply) -> LossFn:
  """Mean squared error over every element of the batch; aux holds it as `mse`.

  Args:
    apply: `(params, shared, x [batch, ...]) -> predictions`, of y's shape.

  Returns:
    A loss on batches `(x, y)`.

  Raises:
    ValueError: from the loss, when predictions do not have the shape of y.

  Example:
    >>> import jax.numpy as jnp
    >>> loss, aux = regression(lambda params, shared, x: params * x)(2.0, (), (jnp.ones((3, 1)), jnp.zeros((3, 1))))
    >>> float(loss)
    4.0
  """

  check_takes("apply", apply, APPLY)

  def loss_fn(params: Params, shared: PyTree, batch: PyTree) -> tuple[jax.Array, Aux]:
    x, y, weights = padding.unpack(batch)
    check_targets(y)
    predictions = padding.apply_to(apply, params, shared, x)
    check_batch_axis(apply, params, shared, x, y)
    if predictions.shape != y.shape:
      hint = "; pass y[..., None]" if predictions.shape == (*y.shape, 1) else ""
      raise ValueError(f"predictions must have the shape of y, {y.shape}; got {predictions.shape}{hint}")
    loss = padding.mean(jnp.square(_at_least_float32(predictions) - _at_least_float32(y)), weights)
    return loss, {"mse": loss}

  return loss_fn


def support_plus_one(apply: Apply, loss_of: Callable[[Apply], LossFn] = classification) -> LossFn:
  """Non-transductive classification: each query example is in a batch with the support set and no other query.

  Batch statistics then see one query example at a time. Use with `query_batch_fn=whole_task`.

  Args:
    apply: `(params, shared, x [batch, ...]) -> logits [batch, classes]`.
    loss_of: `(apply) -> loss` on batches `(x, y)`, of the logits that come out.

  Returns:
    A loss on a `Task` of `(x, y)` pairs, whose aux is that of `loss_of`.

  Example:
    >>> import jax.numpy as jnp
    >>> task = Task(support=(jnp.array([1.0, 3.0]), jnp.zeros(2)), query=(jnp.array([2.0, 8.0]), jnp.zeros(2)))
    >>> loss_fn = support_plus_one(lambda params, shared, x: x - jnp.mean(x), regression)
    >>> float(loss_fn((), (), task)[0])  # 2 less the mean of 1, 3, 2; 8 less that of 1, 3, 8
    8.0

  Reference:
    Nichol, Achiam, Schulman 2018, arXiv 1803.02999, section 6.1.
  """

  check_takes("apply", apply, APPLY)

  def loss_fn(params: Params, shared: PyTree, task: Task) -> tuple[jax.Array, Aux]:
    support_x, _, weights = padding.unpack(task.support)
    support_x = support_x if weights is None else support_x.x
    query_x = task.query[0]

    def one(x: jax.Array) -> jax.Array:
      both: Any = jnp.concatenate([support_x, x[None]])
      if weights is not None:
        both = padding.PaddedInputs(both, jnp.append(weights, 1))
      return padding.apply_to(apply, params, shared, both)[-1]

    at_once = max(1, _EXAMPLES_AT_ONCE // (support_x.shape[0] + 1))
    all_fit = query_x.shape[0] <= at_once
    logits = jax.vmap(one)(query_x) if all_fit else jax.lax.map(one, query_x, batch_size=at_once)
    return loss_of(lambda params, shared, x: logits)(params, shared, task.query)

  return loss_fn


def support(
  apply_with_stats: ApplyWithStats,
  loss_of: Callable[[Apply], LossFn] = classification,
) -> LossFn:
  """The loss on the query set, where batch norm only uses the statistics of the support set.

  As a query loss, with `InnerLoop.query_batch_fn=whole_task`. The statistics are those of the adapted
  network, layer by layer, in one pass over the whole support set.

  Args:
    apply_with_stats: `(params, shared, stats or None, x [batch, ...]) -> (outputs, stats)`, a `Network`'s.
    loss_of: `(apply) -> loss` on batches `(x, y)`, e.g. `classification`.

  Returns:
    A loss on a `Task` of `(x, y)` pairs, whose aux is that of `loss_of`.

  Example:
    >>> import jax.numpy as jnp
    >>> def centred(params, shared, stats, x):
    ...   stats = stats or {"mean": jnp.mean(x)}
    ...   return x - stats["mean"], stats
    >>> task = Task(support=(jnp.array([1.0, 3.0]), jnp.zeros(2)), query=(jnp.array([2.0, 8.0]), jnp.zeros(2)))
    >>> float(support(centred, regression)((), (), task)[0])  # less 2: 0 and 6
    18.0
  """

  def loss_fn(params: Params, shared: PyTree, task: Task) -> tuple[jax.Array, Aux]:
    _, stats = apply_with_stats(params, shared, None, padding.inputs(task.support))
    return loss_of(lambda p, s, x: apply_with_stats(p, s, stats, x)[0])(params, shared, task.query)

  return loss_fn


def whole_task(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Task:
  """A query_batch_fn for losses that also read the support set.

  Args:
    key: Not used.
    task: The task.
    params: Not used.
    shared: Not used.

  Returns:
    The task, support set and all.

  Example:
    >>> whole_task(jax.random.key(0), Task(support=1, query=2), (), ())
    Task(support=1, query=2)
  """
  del key, params, shared
  return task


def _cross_entropy(logits: jax.Array, labels: jax.Array, weights: jax.Array | None) -> jax.Array:
  return padding.mean(_each_cross_entropy(logits, labels), weights)


def _accuracy(logits: jax.Array, labels: jax.Array, weights: jax.Array | None) -> jax.Array:
  correct = jnp.argmax(logits, -1) == labels
  return padding.mean(correct.astype(_at_least_float32(logits).dtype), weights)


def _at_least_float32(outputs: jax.Array) -> jax.Array:
  """Losses sum in float32 or more: of a bfloat16 network, 74 of 75 would come out as 0.9883."""
  return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def _each_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """The loss of each example; NaN for a label that is no class, as -1 would count from the end."""
  check_labels(labels, logits)
  each = optax.softmax_cross_entropy_with_integer_labels(_at_least_float32(logits), labels)
  return jnp.where((labels >= 0) & (labels < logits.shape[-1]), each, jnp.nan)
