"""iMAML: the meta-gradient at a solved inner problem, by the implicit function theorem."""

from __future__ import annotations

from typing import Any

import jax
import optax

from warpjax import linear_solve
from warpjax.checks import check_count, is_number
from warpjax.meta_gradients.trajectory import Contribution, zeros
from warpjax.problem import Problem, loss_of
from warpjax.types import AdaptState, Aux, InnerLoop, LinearSolve, MetaParams, Params, PyTree


def implicit(solve: LinearSolve, *, prox_offset: float = 0.0) -> Contribution:
  """`x = (I + H / prox)^{-1} grad L_query(final)`, H the Hessian of the inner loss at `final`.

  It is the derivative through `grad L(theta, shared) + prox (theta - initial) = 0`, so `initial` gets x and `shared`
  its direct gradient less `(d grad L / d shared)^T x / prox`. The estimate does not depend on how `final` was reached:
  any rule will do, and memory does not grow with the steps. If the inner problem is not solved,
  `implicit/inner_gradient_norm` is large.

  Args:
    solve: For example `linear_solve.cg(5)`.
    prox_offset: Added to `prox` in the operator and in the gradient of `shared`; 10 in `implicit_released`.

  Returns:
    A contribution to the `initial` and `shared` blocks; its info holds `implicit/residual`, `implicit/iterations`
    and `implicit/inner_gradient_norm`.

  Raises:
    ValueError: when `solve` is no function; from `along_trajectory`, when the inner loop has no `prox`; from the
      estimator, when nothing adapts.

  Example:
    >>> isinstance(implicit(linear_solve.cg(5)), Contribution)
    True

  Reference:
    Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630, equation 6.
  """
  if not callable(solve):
    raise ValueError(f"solve must be a LinearSolve such as linear_solve.cg(5); got {solve!r}")

  def finish(problem: Problem, carry: Any, final: AdaptState) -> tuple[MetaParams, Aux]:
    del carry
    if not jax.tree.leaves(final.params):
      raise ValueError(f"implicit needs parameters that adapt; MetaParams.initial has none, {final.params!r}")
    shared, num_steps = problem.meta_params.shared, problem.inner.num_steps
    scale = 1.0 / (problem.inner.prox + prox_offset)
    gradient = _gradient_map(problem, final.params)

    def along(vector: Params) -> Any:
      # Tied to the vector, or XLA computes the activations at `final` ahead of the solve and keeps them all along.
      point = jax.tree.map(lambda p, v: p + 0 * v, final.params, vector)
      # JAX's gradient of the prox term is `prox conj(theta - initial)`, so x meets H behind a conjugate.
      return jax.jvp(lambda theta: gradient(theta, shared), (point,), (optax.tree.conj(vector),))

    def operator(vector: Params) -> Params:
      return optax.tree.add_scale(vector, scale, along(vector)[1][0])

    query = jax.grad(lambda theta, other: problem.query_loss(theta, other, num_steps)[0], argnums=(0, 1))
    query_params, query_shared = query(final.params, shared)
    x, info = solve(operator, query_params)
    # Equality of mixed partials: the pull-back onto `shared` is the derivative of its gradient along x.
    (inner_gradient, _), (_, mixed) = along(x)
    block = jax.tree.map(lambda direct, pulled: direct - scale * pulled, query_shared, mixed)
    return zeros(problem, initial=x, shared=block), _diagnostics(problem, final.params, inner_gradient, info)

  return Contribution(lambda problem: (), lambda problem, carry, step: carry, finish, _check)


def implicit_released(cg_steps: int = 5) -> Contribution:
  """The linear system of iMAML's released code, `(1 + 1) x + H x / (lambda + 10) = b`, not the paper's.

  Args:
    cg_steps: Conjugate gradient iterations.

  Returns:
    A contribution, as `implicit`.

  Raises:
    ValueError: when `cg_steps` is below 1.

  Example:
    >>> isinstance(implicit_released(), Contribution)
    True

  Reference:
    Released code of arXiv 1909.04630, defaults `cg_damping=1`, `lam + 10`.
  """
  check_count("cg_steps", cg_steps)
  return implicit(linear_solve.cg(cg_steps, damping=1.0, tol=1e-5), prox_offset=10.0)


def _gradient_map(problem: Problem, final: Params) -> Any:
  batch = problem.batch(final, problem.inner.num_steps)

  def loss(theta: Params, shared: PyTree) -> jax.Array:
    return loss_of(problem.inner)(theta, shared, batch)[0]

  return jax.grad(loss, argnums=(0, 1))


def _diagnostics(problem: Problem, final: Params, gradient: Params, info: Aux) -> Aux:
  pull = optax.tree.scale(problem.inner.prox, optax.tree.conj(optax.tree.sub(final, problem.meta_params.initial)))
  stationarity = optax.tree.norm(optax.tree.add(gradient, pull))
  return {**{f"implicit/{name}": value for name, value in info.items()}, "implicit/inner_gradient_norm": stationarity}


def _check(inner: InnerLoop) -> None:
  if is_number(inner.prox) and inner.prox <= 0:
    raise ValueError(f"implicit needs InnerLoop.prox > 0 (the paper's lambda, for example 2.0); got {inner.prox!r}")
