"""Meta-gradients that are gathered along an adaptation without differentiating it, in constant memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import optax

from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_learnable
from warpjax.differentiation import constant
from warpjax.problem import Problem
from warpjax.types import AdaptState, Aux, CarriedMetaGrad, InnerLoop, InnerStep, MetaGradFn, MetaParams, PyTree, Task


class Contribution(NamedTuple):
  """A fold over the inner steps, run inside the adaptation's own scan.

  Attributes:
    init: `(problem) -> carry`.
    step: `(problem, carry, inner_step) -> carry`.
    finish: `(problem, carry, final) -> (gradient, info)`; `gradient` is a MetaParams with exact zeros in the blocks
      that it does not estimate, `info` a dict of scalars added to aux.
    check: `(inner) -> None`, raises a ValueError when the inner loop does not suit.
    pullback: Whether `step` needs `inner_step.pullback`, the derivative of the step in `shared` and `rule`.
  """

  init: Callable[[Problem], PyTree]
  step: Callable[[Problem, PyTree, InnerStep], PyTree]
  finish: Callable[[Problem, PyTree, AdaptState], tuple[MetaParams, Aux]]
  check: Callable[[InnerLoop], None] = lambda inner: None
  pullback: bool = False


Result = tuple[tuple[jax.Array, Aux], MetaParams]
Guests = tuple[Contribution, ...]


# No named tuple, as `jax.jit` needs weak references. Compared by identity, as functions are.
@dataclasses.dataclass(frozen=True, eq=False)
class OneAdaptation:
  """A `MetaGradFn` that adapts once. The contributions of other estimators can be folded along its adaptation.

  Attributes:
    inner: The inner loop.
    run: `(meta_params, task, key, guests) -> (result, gradients of the guests)`; `guests` are contributions.
    own: The contributions that make it up; `()` for an estimate of another kind, which cannot be a guest.
  """

  inner: InnerLoop
  run: Callable[[MetaParams, Task, jax.Array, Guests], tuple[Result, list[MetaParams]]]
  own: Guests = ()

  def __call__(self, meta_params: MetaParams, task: Task, key: jax.Array) -> Result:
    """The meta-gradient."""
    return self.run(meta_params, task, key, ())[0]


class Followed(NamedTuple):
  """An adaptation, and the `(gradient, info)` of each contribution."""

  results: list[tuple[MetaParams, Aux]]
  final: AdaptState
  seen: PyTree


def follow(
  problem: Problem,
  start: AdaptState,
  contributions: Guests,
  observe: Callable[[InnerStep], PyTree] | None = None,
) -> Followed:
  """One adaptation, with contributions folded along it.

  Args:
    problem: The task.
    start: The state to start from.
    contributions: The contributions to fold.
    observe: `(inner_step) -> tree`, stacked over the steps as `seen`; None for nothing.

  Returns:
    A `Followed`.
  """

  def fold(carries: tuple, seen: InnerStep) -> tuple:
    return tuple(c.step(problem, carry, seen) for c, carry in zip(contributions, carries, strict=True))

  carries = tuple(c.init(problem) for c in contributions)
  step: Any = problem.differentiated_step if any(c.pullback for c in contributions) else problem.step
  final, carries, seen = run_steps(step, start, (fold, carries), last=problem.inner.num_steps, observe=observe)
  results = [c.finish(problem, carry, final) for c, carry in zip(contributions, carries, strict=True)]
  return Followed(results, final, seen)


def along_trajectory(
  inner: InnerLoop, *contributions: Contribution, carry_optimizer: bool | Literal["in_turn"] = False
) -> MetaGradFn | CarriedMetaGrad:
  """One adaptation, and the sum of the contributions folded along it.

  Args:
    inner: The inner loop, any rule.
    *contributions: `reptile()`, `leap()`, `implicit(solve)`, `warp()`, or your own.
    carry_optimizer: Whether the state of the rule's transformation is passed from task to task instead of reset.
      True: each position in a meta-step has its own state, which is passed to the task at the same position of the
      next meta-step, so that tasks can be vmapped. "in_turn": one state is passed through the tasks of a meta-step in
      sequence, and on to the next meta-step, as Adam's moments are in Reptile's released code. A step count continues
      too, so a schedule over inner steps, and `per_step_sgd`, do not restart.

  Returns:
    A `MetaGradFn`, or a `CarriedMetaGrad` when the optimizer state is carried.

  Raises:
    ValueError: without a contribution, if a contribution cannot be used with the inner loop, or for another invalid
      argument.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2)
    >>> grad_fn = along_trajectory(inner, wj.meta_gradients.reptile())
    >>> _, grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> float(grads.initial)
    -3.0
  """
  num_steps = check_inner(inner)
  if carry_optimizer not in (False, True, "in_turn"):
    raise ValueError(f"carry_optimizer must be False, True or 'in_turn'; got {carry_optimizer!r}")
  if not contributions or not all(isinstance(c, Contribution) for c in contributions):
    raise ValueError(f"along_trajectory takes one Contribution or more, such as reptile(); got {contributions!r}")
  for contribution in contributions:
    contribution.check(inner)

  def run(problem: Problem, start: AdaptState, guests: Guests) -> tuple[Result, list[MetaParams], PyTree]:
    check_learnable(problem.meta_params)
    results, final, _ = follow(problem, start, (*contributions, *guests))
    loss, aux = problem.query_loss(final.params, problem.meta_params.shared, num_steps)
    grads = [grads for grads, _ in results]
    for _, info in results[: len(contributions)]:
      aux = {**aux, **info}
    return ((loss, aux), total(grads[: len(contributions)])), grads[len(contributions) :], final.opt_state

  def shared(meta_params: MetaParams, task: Task, key: jax.Array, guests: Guests) -> tuple[Result, list[MetaParams]]:
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    return run(problem, problem.start(), guests)[:2]

  def carried(meta_params: MetaParams, task: Task, key: jax.Array, carry: PyTree) -> tuple[Result, PyTree]:
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    result, _, carry = run(problem, AdaptState(meta_params.initial, carry), ())
    return result, carry

  def init_carry(meta_params: MetaParams) -> PyTree:
    return inner.rule.transform(meta_params.rule).init(meta_params.initial)

  if not carry_optimizer:
    return OneAdaptation(inner, shared, contributions)
  return CarriedMetaGrad(init_carry, carried, in_turn=carry_optimizer == "in_turn")


def total(grads: Sequence[MetaParams]) -> MetaParams:
  """The sum of meta-gradients."""
  return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *grads)


def zeros(problem: Problem, **blocks: PyTree) -> MetaParams:
  """A meta-gradient that is exactly zero but for the blocks given, for the `finish` of a contribution.

  Args:
    problem: The problem whose meta-parameters give the shapes.
    **blocks: `initial`, `shared` or `rule`.

  Returns:
    A `MetaParams`.
  """
  return optax.tree.zeros_like(problem.meta_params)._replace(**blocks)
