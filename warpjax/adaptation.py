"""Adaptation to one task: one `lax.scan`, so compile time does not grow with the number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from warpjax.checks import check_count, check_learnable, is_number
from warpjax.differentiation import constant
from warpjax.mistakes import LOSS, check_takes, short
from warpjax.numerics import take
from warpjax.padding import Padded, check_weights, real_first
from warpjax.problem import Problem, check_examples, takes_step
from warpjax.types import (
  AdaptState,
  Batch,
  BatchFn,
  InnerLoop,
  InnerStep,
  MetaParams,
  Params,
  PyTree,
  Task,
  Trajectory,
  UpdateRule,
  full_batch,
  full_query,
)

__all__ = ["adapt", "check_inner", "check_rule", "epochs", "full_batch", "full_query", "minibatch", "run_steps"]

# Apart from the step indices that other batches fold in.
_SHUFFLE_STREAM = 0x5A0F


def run_steps(
  step: Callable[[AdaptState, jax.Array], InnerStep],
  state: AdaptState,
  fold: tuple[Callable[[PyTree, InnerStep], PyTree], PyTree] | None = None,
  *,
  first: int = 0,
  last: int,
  observe: Callable[[InnerStep], PyTree] | None = None,
  scan: Callable[..., Any] = jax.lax.scan,
) -> tuple[AdaptState, PyTree, PyTree]:
  """Runs the inner steps `first <= index < last` in one scan.

  Args:
    step: `(state, index) -> inner_step`, such as `Problem.step`.
    state: The state to start from.
    fold: `(step_fn, carry)`; `carry = step_fn(carry, inner_step)` runs inside the scan, so nothing is stacked.
    first: Index of the first step.
    last: One past the index of the last step.
    observe: `(inner_step) -> tree` to stack over the steps; None for nothing.
    scan: Used instead of `jax.lax.scan`. With a policy of `memory.scan_of` that stores fewer carries than steps,
      `observe` must be None.

  Returns:
    The final state, the fold's carry, and the stacked observations `[last - first, ...]`.
  """
  fold_step, fold_carry = fold or (lambda carry, seen: carry, ())

  def body(carry: tuple[AdaptState, PyTree], index: jax.Array) -> tuple[tuple[AdaptState, PyTree], PyTree]:
    seen = step(carry[0], index)
    return (seen.next, fold_step(carry[1], seen)), observe(seen) if observe else None

  (state, fold_carry), observed = scan(body, (state, fold_carry), jnp.arange(first, last))
  return state, fold_carry, observed


def adapt(
  inner: InnerLoop,
  meta_params: MetaParams,
  task: Task,
  key: jax.Array,
  *,
  num_steps: int | None = None,
  record: bool = False,
) -> Trajectory:
  """Adapts `meta_params.initial` to one task.

  `theta_{k+1} = theta_k + U(grad L(theta_k, shared; batch_k))`, U the rule's transformation.

  Args:
    inner: The loop: loss, rule, number of steps.
    meta_params: The initial parameters, the shared parameters, and the rule's parameters.
    task: The task; the learner adapts to its `support`.
    key: The task's key, which is the same at every step.
    num_steps: Overrides `inner.num_steps`.
    record: Whether to keep every step.

  Returns:
    A `Trajectory`: `final` is `(params, opt_state)`; `steps`, when recorded, an `InnerStep` of leaves
    `[num_steps, ...]`, else None.

  Raises:
    ValueError: when a field of `inner` is not allowed, or the task is differentiated (its batches are constants).

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (jnp.sum((w - batch) ** 2), {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.25), num_steps=3)
    >>> task = wj.Task(support=jnp.array(8.0), query=jnp.array(8.0))
    >>> float(adapt(inner, wj.MetaParams(jnp.array(0.0)), task, jax.random.key(0)).final.params)
    7.0
  """
  last = check_inner(inner, num_steps)
  check_learnable(meta_params, ("initial", "shared"))
  problem = Problem(inner, meta_params, constant(task, "the task"), key)
  check_examples(problem)
  observe = (lambda step: step) if record else None
  final, _, steps = run_steps(problem.step, problem.start(), last=last, observe=observe)
  return Trajectory(final, steps)


def check_rule(rule: UpdateRule) -> None:
  """Raises a ValueError if `rule` is not an UpdateRule, for example an optax transformation."""
  if not isinstance(rule, UpdateRule):
    raise ValueError(
      "rule must be an UpdateRule such as rules.sgd(0.1), or, of an optax transformation, "
      f"rules.from_optax(optax.sgd(0.1)); got {short(rule)}"
    )


def check_inner(inner: InnerLoop, num_steps: int | None = None) -> int:
  """The number of inner steps, once every field of `inner` is known to be allowed.

  Raises:
    ValueError: naming the field, what it got and what is allowed.
  """
  if not isinstance(inner, InnerLoop):
    raise ValueError(f"inner must be an InnerLoop(loss_fn, rule, num_steps); got {type(inner).__name__}")
  check_rule(inner.rule)
  _check_functions(inner)
  steps = inner.num_steps if num_steps is None else num_steps
  if hasattr(steps, "aval"):
    raise ValueError(f"num_steps must be a Python integer, known before anything compiles; got {steps!r}")
  check_count("num_steps", steps)
  prox = inner.prox
  if not (0 <= prox < float("inf") if is_number(prox) else hasattr(prox, "dtype")):  # an array may be traced
    raise ValueError(f"InnerLoop.prox must be finite and at least 0; got {inner.prox!r}")
  return int(steps)


def _check_functions(inner: InnerLoop) -> None:
  """Raises a ValueError if a field of `inner` is not a function of its arguments."""
  check_takes("InnerLoop.loss_fn", inner.loss_fn, LOSS)
  if inner.query_loss_fn is not None:
    check_takes("InnerLoop.query_loss_fn", inner.query_loss_fn, LOSS)
  check_takes("InnerLoop.batch_fn", inner.batch_fn, ("key", "support", "step", "params", "shared"))
  step = ("step",) if takes_step(inner.query_batch_fn) else ()
  check_takes("InnerLoop.query_batch_fn", inner.query_batch_fn, ("key", "task", "params", "shared", *step))


def minibatch(size: int) -> BatchFn:
  """A batch_fn that draws `size` examples without replacement, anew at each step.

  Padding (`padding.Padded`) is never drawn: if a task has fewer real examples than `size`, all of them are in the
  batch, and the rest of the batch has weight 0.

  Args:
    size: Examples of a step, at most as many as the support set has (the leading axis of its leaves).

  Returns:
    A `BatchFn`; its batches have leaves `[size, ...]`.

  Raises:
    ValueError: when `size` is below 1 (here), or above the number of examples (when traced).

  Example:
    >>> minibatch(2)(jax.random.key(0), jnp.ones((5, 3)), 0, (), ()).shape
    (2, 3)
  """
  check_count("size", size)

  def batch_fn(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    del params, shared
    order = jax.random.permutation(jax.random.fold_in(key, step), _num_examples(support, size))
    if not isinstance(support, Padded):
      return take(support, order[:size])
    (order, real), place = real_first(support, order), jnp.arange(size)
    batch = take(support, order[place % real])
    return batch._replace(weights=jnp.where(place < real, batch.weights, 0))

  return batch_fn


def epochs(size: int) -> BatchFn:
  """A batch_fn that cycles through the shuffled support set in minibatches, and reshuffles it when it is exhausted.

  As in Reptile's released code, a batch may span two epochs when `size` does not divide the examples. Padding
  (`padding.Padded`) is never drawn: an epoch is as long as a task has real examples.

  Args:
    size: Examples of a step, at most as many as the support set has (the leading axis of its leaves).

  Returns:
    A `BatchFn`; its batches have leaves `[size, ...]`.

  Raises:
    ValueError: when `size` is below 1 (here), or above the number of examples (when traced).

  Example:
    >>> batches = [epochs(2)(jax.random.key(0), jnp.arange(4), step, (), ()) for step in range(2)]
    >>> sorted(jnp.concatenate(batches).tolist())
    [0, 1, 2, 3]

  Reference:
    Nichol, Achiam, Schulman 2018, arXiv 1803.02999, section 6.
  """
  check_count("size", size)

  def batch_fn(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    del params, shared
    count = _num_examples(support, size)
    _, total = real_first(support, jnp.arange(count))
    position = step * size + jnp.arange(size)
    first = (step * size) // total
    stream = jax.random.fold_in(key, _SHUFFLE_STREAM)
    orders = (jax.random.permutation(jax.random.fold_in(stream, epoch), count) for epoch in (first, first + 1))
    this, following = (real_first(support, order)[0] for order in orders)
    chosen = jnp.where(position // total == first, this[position % total], following[position % total])
    return take(support, chosen)

  return batch_fn


def _num_examples(support: PyTree, size: int) -> int:
  if isinstance(support, Padded):
    check_weights(support)
  leaves = jax.tree.leaves(support)
  if not leaves or not all(jnp.ndim(leaf) for leaf in leaves):
    raise ValueError(f"support must be arrays [examples, ...] to draw from; got {jax.tree.map(jnp.shape, support)!r}")
  total = leaves[0].shape[0]
  if any(leaf.shape[0] != total for leaf in leaves):
    raise ValueError(f"support must have as many examples in each array; got {jax.tree.map(jnp.shape, support)!r}")
  if size > total:
    raise ValueError(f"size must be at most the number of support examples, {total}; got {size}")
  return total
