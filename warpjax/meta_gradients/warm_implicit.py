"""The implicit gradient with warm starts: its linear solve, and optionally its adaptation, continue the last ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from warpjax import linear_solve
from warpjax.adaptation import check_inner
from warpjax.checks import check_learnable
from warpjax.differentiation import constant
from warpjax.meta_gradients.implicit import implicit
from warpjax.meta_gradients.trajectory import follow
from warpjax.numerics import is_finite
from warpjax.problem import Problem
from warpjax.types import AdaptState, CarriedMetaGrad, InnerLoop, LinearSolve, MetaParams, Params, Task


class Last(NamedTuple):
  """The solution of the last meta-step's linear system, and the state that it adapted to, or None."""

  solution: Params
  state: AdaptState | None


def warm_implicit(inner: InnerLoop, solve: LinearSolve, *, carry_params: bool = False) -> CarriedMetaGrad:
  """`implicit(solve)`, where the solve starts from the last solution x: `x <- x + solve(b - A x)`, A = `I + H / prox`.

  A few products for each meta-step are then enough if the systems change slowly, as they do if every meta-step has the
  same task. `linear_solve.identity(rho)` makes one step of gradient descent on the system: `x <- x + rho (b - A x)`.

  Args:
    inner: The inner loop, whose `prox` is above 0.
    solve: For example `linear_solve.cg(2)`. The first product of each meta-step is `A x` at the start.
    carry_params: Whether the adaptation starts from the last adapted parameters and optimizer state as well, instead of
      `initial`, which then only counts as the centre of the proximal term.

  Returns:
    A `CarriedMetaGrad`; each position in a meta-step has a solution of its own. It starts again from zero, and the
    adaptation from `initial`, after a meta-step that was not finite. Aux holds the same values as with `implicit`.

  Raises:
    ValueError: as `implicit`, and when `inner` is not allowed.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - shared * batch) ** 2, {})
    >>> inner = wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=30, prox=1.0)
    >>> meta_params, task = wj.MetaParams(jnp.array(0.0), jnp.array(1.0)), wj.Task(2.0, 3.0)
    >>> estimate, residuals = warm_implicit(inner, wj.linear_solve.identity(0.25)), []
    >>> carry = estimate.init(meta_params)
    >>> for _ in range(3):
    ...   ((_, aux), grads), carry = estimate.grad(meta_params, task, jax.random.key(0), carry)
    ...   residuals.append(float(aux["implicit/residual"]))
    >>> residuals  # residuals of the previous solution; the operator is 2
    [1.0, 0.5, 0.25]

  Reference:
    Arbel and Mairal 2022, arXiv 2111.14580, algorithm 1; with one step of each, Dagreou, Ablin, Vaiter, Moreau 2022,
    arXiv 2201.13409, algorithm 1, whose three updates are simultaneous.
  """
  if not callable(solve):
    raise ValueError(f"solve must be a LinearSolve such as linear_solve.cg(2); got {solve!r}")
  num_steps = check_inner(inner)
  implicit(solve).check(inner)

  def init(meta_params: MetaParams) -> Last:
    opt_state = inner.rule.transform(meta_params.rule).init(meta_params.initial)
    state = AdaptState(meta_params.initial, opt_state) if carry_params else None
    return Last(optax.tree.zeros_like(meta_params.initial), state)

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array, last: Last) -> tuple[Any, Last]:
    check_learnable(meta_params)
    problem = Problem(inner, meta_params, constant(task, "the task"), key)
    contribution = implicit(linear_solve.started(solve, last.solution))
    followed = follow(problem, last.state or problem.start(), (contribution,))
    grads, info = followed.results[0]
    loss, aux = problem.query_loss(followed.final.params, meta_params.shared, num_steps)
    now = Last(grads.initial, followed.final if carry_params else None)  # the `initial` block is the solution itself
    kept = optax.tree.where(is_finite((loss, now)), now, init(meta_params))
    return ((loss, {**aux, **info}), grads), kept

  return CarriedMetaGrad(init, grad_fn)
