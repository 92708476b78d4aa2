"""Truncated back-propagation through a long adaptation, a segment at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.adaptation import check_inner
from warpjax.checks import check_choice, check_count, check_differentiable, check_learnable
from warpjax.differentiation import Derivative, Memory, Mode, constant
from warpjax.memory import check_memory, scan_of
from warpjax.meta_gradients.path_loss import PathLoss, check_no_query, online_path, weighted_path
from warpjax.numerics import is_finite
from warpjax.problem import Problem
from warpjax.types import AdaptState, CarriedMetaGrad, InnerLoop, MetaParams, Task
from warpjax.zero_gradient import check_at_zero


class Segment(NamedTuple):
  """The state of an interrupted adaptation: the number of its next step, and its point and optimizer state."""

  number: jax.Array
  state: AdaptState


def truncated_unroll(
  inner: InnerLoop,
  length: int,
  derivative: Derivative = "first_order",
  *,
  memory: Memory = "auto",
  snapshots: int | None = None,
  online: bool = False,
) -> CarriedMetaGrad:
  """Truncated back-propagation: the derivative of the mean query loss over a segment of `length` inner steps.

  The estimate is `d (1 / length) sum_k L_query(theta_k)`. A segment begins at the end of the last one, which is held
  constant unless it is `initial`. After `inner.num_steps` steps, or when it is no longer finite, the adaptation
  restarts from `initial`. A segment uses the task of its call, so an adaptation to one task is
  `compose.repeated(training.meta_step(...), num_steps // length)`.

  Args:
    inner: The inner loop; `num_steps` is the length of an adaptation.
    length: Steps in a segment, a divisor of `num_steps`.
    derivative: As for `unrolled`; learned optimizers hold the inner gradient constant.
    memory: As for `unrolled`, for the steps of a segment.
    snapshots: As for `unrolled`.
    online: Whether the mean is over the inner losses before each step of the segment, which are
      computed anyway, instead of over the query losses after each step.

  Returns:
    A `CarriedMetaGrad`; its value is the query loss at the segment's end, or with `online` the mean.

  Raises:
    ValueError: when an argument is not allowed, or the rule cannot be unrolled; when traced, if the derivative of the
      rule is not finite at a zero gradient.

  Example:
    >>> import warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> estimate = truncated_unroll(wj.InnerLoop(loss, wj.rules.l2l_lstm(), num_steps=100), 20)

  Reference:
    Andrychowicz et al. 2016, arXiv 1606.04474, section 2 and equation 3.
  """
  num_steps = check_inner(inner)
  check_choice("derivative", derivative, Derivative)
  check_memory(memory, snapshots)
  check_differentiable("truncated_unroll", inner.rule)
  check_count("length", length)
  check_choice("online", online, (True, False))
  check_no_query(inner, online)
  if num_steps % length:
    raise ValueError(f"length must divide the inner loop's num_steps, {num_steps}; got {length}")

  def objective(meta_params: MetaParams, task: Task, key: jax.Array, segment: Segment) -> tuple[jax.Array, Any]:
    check_at_zero("truncated_unroll", inner.rule, meta_params.initial, held=derivative == "first_order")
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    fresh = segment.number == 0
    state = jax.tree.map(lambda new, old: jnp.where(fresh, new, old), problem.start(), segment.state)
    weights, held = jnp.full(num_steps, 1 / length), derivative == "first_order"
    path = online_path(problem, weights, held) if online else weighted_path(problem, weights)
    mode: Mode = "value" if online and held else derivative

    def body(carry: tuple[AdaptState, PathLoss], index: jax.Array) -> tuple[tuple[AdaptState, PathLoss], None]:
      step = problem.step(carry[0], index, mode)
      return (step.next, path.step(carry[1], step)), None

    scan = scan_of(derivative, memory, snapshots)
    (state, seen), _ = scan(body, (state, path.start), segment.number + jnp.arange(length))
    return path.total(seen), ((seen.loss, seen.aux), Segment((segment.number + length) % num_steps, state))

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array, segment: Segment) -> tuple[Any, Segment]:
    check_learnable(meta_params)
    (_, (value, segment)), grads = jax.value_and_grad(objective, has_aux=True)(meta_params, task, key, segment)
    # A diverged adaptation restarts, and ends with the others.
    state = optax.tree.where(is_finite((value, segment.state)), segment.state, init(meta_params).state)
    return (value, grads), segment._replace(state=state)

  def init(meta_params: MetaParams) -> Segment:
    opt_state = inner.rule.transform(meta_params.rule).init(meta_params.initial)
    return Segment(jnp.zeros((), jnp.int32), AdaptState(meta_params.initial, opt_state))

  return CarriedMetaGrad(init, grad_fn)
