"""The Hessian-free inner solver of iMAML."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax import linear_solve
from warpjax.checks import check_count
from warpjax.numerics import real_vdot
from warpjax.types import LinearSolve, Params, PyTree, UpdateRule


def newton_cg(cg_steps: int = 5, *, damping: float = 0.0, max_backtracking_steps: int = 20) -> UpdateRule:
  """A Newton step by conjugate gradient, then a backtracking line search.

  `d = -(H + damping I)^{-1} g` by `cg_steps` Hessian-vector products of the inner loss, prox term included; -g where
  d is no descent direction. The step starts at 1 and halves until Armijo's condition holds.

  Args:
    cg_steps: Hessian-vector products a step.
    damping: Added to the Hessian's diagonal.
    max_backtracking_steps: Halvings before the last trial is used; if no trial is finite, the step is zero.

  Returns:
    An `UpdateRule` with rule parameters `()`; it cannot be unrolled, `implicit` is its meta-gradient.

  Raises:
    ValueError: when a count is below 1 or the damping is negative.

  Example:
    >>> newton_cg(5).differentiable
    False

  Reference:
    Martens 2010 (Hessian-free optimisation); Rajeswaran et al. 2019, arXiv 1909.04630, section 4.
  """
  check_count("cg_steps", cg_steps)
  solve = linear_solve.cg(cg_steps, damping=damping, tol=1e-10)
  check_count("max_backtracking_steps", max_backtracking_steps)
  search = optax.scale_by_backtracking_linesearch(max_backtracking_steps, decrease_factor=0.5, increase_factor=1.0)
  transformation = _newton(solve, search)
  return UpdateRule(lambda key, params: (), lambda rule_params: transformation, differentiable=False, name="newton_cg")


def _newton(solve: LinearSolve, search: Any) -> optax.GradientTransformationExtraArgs:
  def update(grads: PyTree, state: Any, params: Params | None = None, *, value_fn: Any, **extra: Any) -> Any:

    def hessian(vector: PyTree) -> PyTree:
      return optax.tree.conj(jax.jvp(jax.grad(value_fn), (params,), (vector,))[1])

    uphill = optax.tree.conj(grads)  # JAX's gradient of complex parameters is the conjugate of the direction
    direction, _ = solve(hessian, uphill)
    descends = real_vdot(direction, uphill) > 0
    direction = jax.tree.map(lambda d, g: -jnp.where(descends, d, g), direction, uphill)
    # A new search starts at the full Newton step, independent of the last one.
    updates, _ = search.update(direction, search.init(params), params, value_fn=value_fn, **extra)
    return updates, state

  return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
