"""WarpGrad: the gradient of one preconditioned step from each point of a trajectory."""

from __future__ import annotations

from typing import Any, Literal

import jax
import optax

from warpjax.checks import check_choice
from warpjax.meta_gradients.trajectory import Contribution, zeros
from warpjax.numerics import add_to, cast_like, sums_like
from warpjax.problem import Problem
from warpjax.types import AdaptState, Aux, InnerLoop, InnerStep, MetaParams, PyTree, UpdateRule
from warpjax.zero_gradient import check_at_zero

Objective = Literal["full", "first_order"]
Reduction = Literal["mean", "sum"]


def warp(objective: Objective = "full", *, reduction: Reduction = "mean") -> Contribution:
  """`mean_k L_meta(theta_k - alpha grad L_task(theta_k; phi); phi)`, differentiated in phi at fixed theta_k.

  phi is the `shared` block, and the rule's parameters if it has any. L_task sees `batch_fn`'s batch, L_meta
  `query_batch_fn`'s, fresh at each point. The trajectory is never differentiated.

  Args:
    objective: "full" (Eq. 11) or "first_order" (Eq. 12: the step is held constant, phi enters only through L_meta).
    reduction: "mean" over the points, or the paper's "sum".

  Returns:
    A contribution to the `shared` and `rule` blocks; to `rule` zero for "first_order", whose step is held constant.

  Raises:
    ValueError: when an argument is not one of its choices; (by `along_trajectory`) when the rule has no derivative;
      when traced, if there is neither a `shared` nor a `rule` block, or for "first_order" no `shared` block.

  Example:
    >>> isinstance(warp("first_order"), Contribution)
    True

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equations 11 and 12, algorithm 1.
  """
  check_choice("objective", objective, Objective)
  check_choice("reduction", reduction, Reduction)

  def init(problem: Problem) -> PyTree:
    check_objective(problem.inner.rule, problem.meta_params, objective)
    return sums_like((problem.meta_params.shared, problem.meta_params.rule))

  def step(problem: Problem, total: PyTree, seen: InnerStep) -> PyTree:
    return add_to(total, step_gradient(problem, seen, objective))

  def finish(problem: Problem, total: PyTree, final: AdaptState) -> tuple[MetaParams, Aux]:
    del final
    points = problem.inner.num_steps if reduction == "mean" else 1
    mean = jax.tree.map(lambda leaf: leaf / points, total)
    shared, rule = cast_like(mean, (problem.meta_params.shared, problem.meta_params.rule))
    return zeros(problem, shared=shared, rule=rule), {}

  def check(inner: InnerLoop) -> None:
    if objective == "full" and not inner.rule.differentiable:
      raise ValueError(
        f"warp('full') cannot differentiate a step of the rule {inner.rule.name!r} (a line search or the like); "
        "use warp('first_order') or another rule"
      )

  return Contribution(init, step, finish, check, pullback=objective == "full")


def check_objective(rule: UpdateRule, meta_params: MetaParams, objective: str) -> None:
  """Raises a ValueError if the objective is constant, or differentiates a rule without a finite derivative.

  It is constant if nothing can be learned, or if only a rule can and the objective has no step.
  """
  if objective == "full":
    check_at_zero("warp('full')", rule, meta_params.initial)
  allowed, learned = "a shared or a rule block", (meta_params.shared, meta_params.rule)
  if objective != "full":
    allowed, learned = "a shared block", meta_params.shared
  if not jax.tree.leaves(learned):
    raise ValueError(f"warp({objective!r}) needs {allowed} to learn; got none (a network without warp-layers?)")


def point_gradient(problem: Problem, state: AdaptState, index: Any, objective: Objective) -> tuple[PyTree, PyTree]:
  """The warp objective's gradient in (shared, rule) at one point; `state` is held constant.

  Args:
    problem: The task.
    state: Task parameters and optimizer state at the point.
    index: The step that the point belongs to.
    objective: "full" or "first_order".

  Returns:
    `(shared gradient, rule gradient)`; the latter is zero for "first_order".
  """

  return step_gradient(problem, problem.step(state, index), objective)


def step_gradient(problem: Problem, seen: InnerStep, objective: Objective) -> tuple[PyTree, PyTree]:
  """`point_gradient` at the start of a step that was taken; with the step's pullback, "full" does not take it again."""
  shared, rule = problem.meta_params[1:]
  loss = lambda after, shared: problem.query_loss(after, shared, seen.number + 1)[0]
  if objective == "first_order":
    return jax.grad(loss, argnums=1)(seen.next.params, shared), optax.tree.zeros_like(rule)
  if seen.pullback is None:
    seen = problem.differentiated_step(seen.state, seen.number)
  after_bar, direct = jax.grad(loss, argnums=(0, 1))(seen.next.params, shared)
  through_step, rule_bar = seen.pullback(after_bar)
  return optax.tree.add(direct, through_step), rule_bar
