"""Matrix-free linear solves over pytrees: `solve(matvec, b) -> (x, info)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.types import Aux, LinearSolve, PyTree

MatVec = Callable[[PyTree], PyTree]


def cg(num_steps: int, *, damping: float = 0.0, tol: float = 0.0) -> LinearSolve:
  """Conjugate gradient for `(A + damping I) x = b`, A symmetric positive definite, from x = 0.

  Args:
    num_steps: At most this many products with A.
    damping: Added to the diagonal.
    tol: Stop once `|b - (A + damping I) x| <= tol |b|`.

  Returns:
    A solve whose info holds `residual` (relative to |b|) and `iterations`.

  Raises:
    ValueError: when an argument is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> x, info = cg(2)(lambda v: jnp.array([2.0, 4.0]) * v, jnp.array([2.0, 2.0]))
    >>> x.round(3).tolist()
    [1.0, 0.5]

  Reference:
    Hestenes and Stiefel 1952; in meta-learning Rajeswaran et al. 2019, arXiv 1909.04630, section 3.1.
  """
  _check(num_steps, damping=damping, tol=tol)

  def solve(matvec: MatVec, b: PyTree) -> tuple[PyTree, Aux]:
    squared = optax.tree.norm(b, squared=True)
    operator = _damped(matvec, damping)

    # Below rounding the recursive residual means nothing, and it goes on shrinking until 0 / 0 follows.
    enough = max(tol, float(jnp.finfo(squared.dtype).eps)) ** 2 * squared

    def go_on(state: Any) -> jax.Array:
      return (state[3] > enough) & (state[4] < num_steps)

    def iterate(state: Any) -> Any:
      x, residual, direction, rr, count = state
      product = operator(direction)
      step = rr / optax.tree.vdot(direction, product)
      x = _add_scaled(x, step, direction)
      residual = _add_scaled(residual, -step, product)
      rr_next = optax.tree.norm(residual, squared=True)
      return x, residual, _add_scaled(residual, rr_next / rr, direction), rr_next, count + 1

    start = (optax.tree.zeros_like(b), b, b, squared, jnp.zeros((), jnp.int32))
    x, _, _, rr, count = jax.lax.while_loop(go_on, iterate, start)
    return x, {"residual": jnp.sqrt(rr / jnp.where(squared > 0, squared, 1.0)), "iterations": count}

  return solve


def neumann(num_steps: int, *, step_size: float = 1.0, damping: float = 0.0) -> LinearSolve:
  """The truncated Neumann series `x = s * sum_{j=0}^{num_steps} (I - s A)^j b` for `A x = b`.

  Args:
    num_steps: Products with A.
    step_size: s; the series converges when `|I - s A| < 1`.
    damping: Added to A's diagonal.

  Returns:
    A solve whose info holds `residual` (relative to |b|, of the last iterate but one: its product is the last made)
    and `iterations`.

  Reference:
    Lorraine, Vicol, Duvenaud 2020, arXiv 1911.02590, equation 8.
  """
  _check(num_steps, damping=damping, step_size=step_size)
  if step_size == 0:
    raise ValueError(f"step_size must be above 0; got {step_size!r}")

  def solve(matvec: MatVec, b: PyTree) -> tuple[PyTree, Aux]:
    operator = _damped(matvec, damping)

    # x_{j+1} = x_j + s (b - A x_j) makes the same partial sums and shows the residual on the way.
    def iterate(_: Any, state: Any) -> Any:
      x, _ = state
      residual = optax.tree.sub(b, operator(x))
      return _add_scaled(x, step_size, residual), optax.tree.norm(residual)

    start = (optax.tree.scale(step_size, b), optax.tree.norm(b))
    x, residual = jax.lax.fori_loop(0, num_steps, iterate, start)
    norm = optax.tree.norm(b)
    return x, {"residual": residual / jnp.where(norm > 0, norm, 1.0), "iterations": jnp.asarray(num_steps, jnp.int32)}

  return solve


def _damped(matvec: MatVec, damping: float) -> MatVec:
  return (lambda v: _add_scaled(matvec(v), damping, v)) if damping else matvec


def _add_scaled(x: PyTree, scale: Any, y: PyTree) -> PyTree:
  return jax.tree.map(lambda a, b: a + (scale * b).astype(a.dtype), x, y)


def _check(num_steps: int, **nonnegative: float) -> None:
  if isinstance(num_steps, bool) or not isinstance(num_steps, int) or num_steps < 1:
    raise ValueError(f"num_steps must be an integer of at least 1; got {num_steps!r}")
  for name, value in nonnegative.items():
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
      raise ValueError(f"{name} must be finite and at least 0; got {value!r}")
