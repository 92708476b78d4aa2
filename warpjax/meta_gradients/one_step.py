"""One-step differentiation: the derivative of only the last inner step."""

from __future__ import annotations

from typing import Any

import jax

from warpjax.checks import check_differentiable
from warpjax.meta_gradients.trajectory import Contribution
from warpjax.problem import Problem, has_prox
from warpjax.types import AdaptState, Aux, InnerLoop, InnerStep, MetaParams
from warpjax.zero_gradient import check_at_zero


def one_step() -> Contribution:
  """`d L_query(F(theta, phi), phi) / d phi` at the last point theta before the end, F the inner step, theta constant.

  Exact for an inner step that reaches the solution from every point (Newton), with an error of `O(rho / (1 - rho))` for
  one that contracts by rho. The path through the earlier points is dropped, so `initial` has only a gradient by the
  proximal term; `unrolled(truncate=1)` keeps that path, with the earlier inner gradients constant.

  Returns:
    A contribution to every block. Memory does not grow with the inner steps.

  Raises:
    ValueError: (by `along_trajectory`) when the rule has no derivative; when traced, if every block would be zero, or
      the rule's derivative is not finite at a zero gradient.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.25), num_steps=50, prox=3.0)
    >>> grad_fn = wj.meta_gradients.along_trajectory(inner, one_step())
    >>> _, grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> float(grads.initial)  # the rate is 1 / (curvature + prox), so that one step is Newton's: -3 * 3 / 4
    -2.25

  Reference:
    Bolte, Pauwels, Vaiter 2023, arXiv 2305.13768, algorithm 3 and corollary 1.
  """

  def init(problem: Problem) -> AdaptState:
    if not has_prox(problem.inner) and not jax.tree.leaves(problem.meta_params[1:]):
      raise ValueError(
        "one_step() needs InnerLoop.prox > 0, or a shared or a rule block: without them the last step does not depend "
        "on the meta-parameters, and the gradient would be zero"
      )
    check_at_zero("one_step", problem.inner.rule, problem.meta_params.initial)
    return problem.start()

  def step(problem: Problem, last: AdaptState, seen: InnerStep) -> AdaptState:
    return seen.state

  def finish(problem: Problem, last: AdaptState, final: AdaptState) -> tuple[MetaParams, Aux]:
    num_steps = problem.inner.num_steps

    def loss(meta_params: MetaParams) -> Any:
      moved = problem._replace(meta_params=meta_params)
      after = moved.step(last, num_steps - 1, "linearized").next.params
      return moved.query_loss(after, meta_params.shared, num_steps)[0]

    return jax.grad(loss)(problem.meta_params), {}

  def check(inner: InnerLoop) -> None:
    check_differentiable("one_step", inner.rule)

  return Contribution(init, step, finish, check)
