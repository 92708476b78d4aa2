"""Matrix-free linear solves over pytrees: `solve(matvec, b) -> (x, info)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from warpjax.checks import check_choice, check_count
from warpjax.numerics import real_vdot
from warpjax.types import Aux, LinearSolve, PyTree

MatVec = Callable[[PyTree], PyTree]
Sketch = Literal["gaussian", "columns"]


def cg(num_steps: int, *, damping: float = 0.0, tol: float = 0.0) -> LinearSolve:
  """Conjugate gradient for `(A + damping I) x = b`, A symmetric positive definite, from x = 0.

  For complex vectors, A is linear and symmetric in their real and imaginary parts, as Hessians are. If a direction p
  has `p^T (A + damping I) p <= 0`, A is not definite, and the solve stops with its present x. If |b|^2 is not finite, x
  is NaN.

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
    Hestenes and Stiefel 1952; stopping as Steihaug 1983; in meta-learning Rajeswaran et al. 2019, arXiv 1909.04630,
    section 3.1.
  """
  _check(num_steps, damping=damping, tol=tol)

  def solve(matvec: MatVec, b: PyTree) -> tuple[PyTree, Aux]:
    squared = optax.tree.norm(b, squared=True)
    operator = _damped(matvec, damping)

    # Below round-off the recursive residual is meaningless, and it continues to shrink until 0 / 0 follows.
    enough = max(tol, float(jnp.finfo(squared.dtype).eps)) ** 2 * squared

    def go_on(state: Any) -> jax.Array:
      return (state[3] > enough) & (state[4] < num_steps) & ~state[5]

    def iterate(state: Any) -> Any:
      x, residual, direction, rr, count, _ = state
      product = operator(direction)
      curvature = real_vdot(direction, product)
      indefinite = curvature <= 0  # a NaN is not, and is passed on to x
      step = jnp.where(indefinite, 0.0, rr / jnp.where(indefinite, 1.0, curvature)).astype(rr.dtype)
      x = _add_scaled(x, step, direction)
      residual = _add_scaled(residual, -step, product)
      rr_next = optax.tree.norm(residual, squared=True)
      return x, residual, _add_scaled(residual, rr_next / rr, direction), rr_next, count + 1, indefinite

    nothing = jnp.where(jnp.isfinite(squared), 0.0, jnp.nan)  # no comparison with NaN lets the loop begin
    start = (optax.tree.full_like(b, nothing), b, b, squared, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, _, _, rr, count, _ = jax.lax.while_loop(go_on, iterate, start)
    return x, {"residual": jnp.sqrt(rr / jnp.where(squared > 0, squared, 1.0)), "iterations": count}

  return solve


def identity(scale: float = 1.0) -> LinearSolve:
  """Takes `scale` times the identity as the inverse: `x = scale * b`, without a product with A.

  The operator of `meta_gradients.implicit` is `I + H / prox`. There `identity()` replaces `H + prox I` by `prox I`, and
  `identity(prox)` replaces it by I, which is T1-T2.

  Args:
    scale: The factor of b.

  Returns:
    A solve whose info holds `residual`, 1 since no product is made, and `iterations`, 0.

  Raises:
    ValueError: when `scale` is not a finite number above 0.

  Example:
    >>> import jax.numpy as jnp
    >>> x, info = identity(0.5)(lambda v: 3 * v, jnp.array([2.0, 4.0]))
    >>> x.tolist()
    [1.0, 2.0]

  Reference:
    Luketina, Berglund, Greff, Raiko 2016, arXiv 1511.06727, section 3.1.
  """
  _check(1, scale=scale)
  if scale == 0:
    raise ValueError(f"scale must be above 0; got {scale!r}")

  def solve(matvec: MatVec, b: PyTree) -> tuple[PyTree, Aux]:
    del matvec
    residual = jnp.sign(optax.tree.norm(b))  # 1, or 0 of zero
    return optax.tree.scale(scale, b), {"residual": residual, "iterations": jnp.zeros((), jnp.int32)}

  return solve


def started(solve: LinearSolve, x: PyTree) -> LinearSolve:
  """The solve that starts from x instead of from 0: `x + solve(b - A x)`.

  Args:
    solve: Any solve.
    x: The start, of the structure of b.

  Returns:
    A solve that makes one more product with A; its `residual` is relative to |b|.

  Example:
    >>> import jax.numpy as jnp
    >>> found, info = started(identity(0.25), jnp.array([1.0]))(lambda v: 2 * v, jnp.array([4.0]))
    >>> found.tolist()
    [1.5]
  """

  def from_x(matvec: MatVec, b: PyTree) -> tuple[PyTree, Aux]:
    rest = optax.tree.sub(b, matvec(x))
    step, info = solve(matvec, rest)
    norm = optax.tree.norm(b)
    share = optax.tree.norm(rest) / jnp.where(norm > 0, norm, 1.0)
    return optax.tree.add(x, step), {**info, "residual": info["residual"] * share}

  return from_x


def neumann(num_steps: int, *, step_size: float = 1.0, damping: float = 0.0) -> LinearSolve:
  """The truncated Neumann series `x = s * sum_{j=0}^{num_steps} (I - s A)^j b` for `A x = b`.

  Args:
    num_steps: Products with A.
    step_size: s; the series converges when `|I - s A| < 1`.
    damping: Added to A's diagonal.

  Returns:
    A solve whose info holds `residual` (relative to |b|) and `iterations`. The residual is
    that of the last iterate but one, for which the last product was made.

  Raises:
    ValueError: when an argument is out of range.

  Example:
    >>> import jax.numpy as jnp
    >>> x, info = neumann(2)(lambda v: 0.5 * v, jnp.array([1.0, 2.0]))
    >>> x.tolist()  # (1 + 1/2 + 1/4) b, towards 2 b
    [1.75, 3.5]

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


def nystrom(
  rank: int, *, shift: float = 1.0, damping: float = 0.0, sketch: Sketch = "gaussian", seed: int = 0
) -> LinearSolve:
  """A low-rank solve of `(A + damping I) x = b`, where `A = shift I + H`, H symmetric: no iterations.

  `H ~ C W^+ C^T` with `C = H S`, `W = S^T H S` for a random S `[size, rank]`. By the Woodbury identity, with
  `s = shift + damping`: `x = (b - C (s W + C^T C)^+ C^T b) / s`. It is exact if H has at most `rank` non-zero
  eigenvalues. The operator of `meta_gradients.implicit` is `I + H / prox`, hence the shift of 1.

  Args:
    rank: Columns of S, at most the number of unknowns. The solve takes `rank + 1` products with A, in sequence.
    shift: The diagonal of A that is added to the part of low rank.
    damping: Added to A's diagonal.
    sketch: S has "gaussian" orthonormal columns, or "columns" of the identity, which pick columns of H (the paper's).
    seed: Seed of S, which is the same for every system.

  Returns:
    A solve whose info holds `residual` (relative to |b|) and `iterations` (the rank). It stores `rank` vectors.

  Raises:
    ValueError: when an argument is out of range; when traced, if `rank` exceeds the number of unknowns.

  Example:
    >>> import jax.numpy as jnp
    >>> x, info = nystrom(1)(lambda v: v + jnp.ones(2) * v.sum(), jnp.array([3.0, 3.0]))
    >>> x.round(3).tolist()
    [1.0, 1.0]

  Reference:
    Hataya and Yamada 2023, arXiv 2302.09726, equations 5 and 6.
  """
  _check(rank, count="rank", shift=shift, damping=damping)
  if shift == 0:
    raise ValueError(f"shift must be above 0; got {shift!r}")
  check_choice("sketch", sketch, Sketch)

  def solve(matvec: MatVec, b: PyTree) -> tuple[PyTree, Aux]:
    flat, unravel = _coordinates(b)
    dtype = jnp.promote_types(flat.dtype, jnp.float32)

    def product(vector: jax.Array) -> jax.Array:
      return _coordinates(matvec(unravel(vector.astype(flat.dtype))))[0].astype(dtype)

    target = flat.astype(dtype)
    tests = _tests(jax.random.key(seed), rank, flat.size, sketch, dtype)
    columns = jax.lax.map(product, tests) - shift * tests
    core, scale = columns @ tests.T, shift + damping
    small = scale * (core + core.T) / 2 + columns @ columns.T
    x = (target - columns.T @ (jnp.linalg.pinv(small, hermitian=True) @ (columns @ target))) / scale
    residual, norm = jnp.linalg.norm(target - product(x) - damping * x), jnp.linalg.norm(target)
    info = {"residual": residual / jnp.where(norm > 0, norm, 1.0), "iterations": jnp.asarray(rank, jnp.int32)}
    return unravel(x.astype(flat.dtype)), info

  return solve


def _tests(key: jax.Array, rank: int, size: int, sketch: Sketch, dtype: Any) -> jax.Array:
  """Orthonormal rows `[rank, size]`."""
  if rank > size:
    raise ValueError(f"rank must be at most the number of unknowns, {size}; got {rank}")
  if sketch == "columns":
    return jax.nn.one_hot(jax.random.choice(key, size, (rank,), replace=False), size, dtype=dtype)
  return jnp.linalg.qr(jax.random.normal(key, (size, rank), dtype))[0].T


def _coordinates(tree: PyTree) -> tuple[jax.Array, Callable[[jax.Array], PyTree]]:
  """The tree as one real vector, imaginary parts behind the real ones, and the way back."""
  flat, unravel = jax.flatten_util.ravel_pytree(tree)
  if not jnp.iscomplexobj(flat):
    return flat, unravel
  return jnp.concatenate([flat.real, flat.imag]), lambda vector: unravel(jax.lax.complex(*jnp.split(vector, 2)))


def _damped(matvec: MatVec, damping: float) -> MatVec:
  return (lambda v: _add_scaled(matvec(v), damping, v)) if damping else matvec


def _add_scaled(x: PyTree, scale: Any, y: PyTree) -> PyTree:
  return jax.tree.map(lambda a, b: a + (scale * b).astype(a.dtype), x, y)


def _check(number: int, *, count: str = "num_steps", **nonnegative: float) -> None:
  check_count(count, number)
  for name, value in nonnegative.items():
    if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
      raise ValueError(f"{name} must be finite and at least 0; got {value!r}")
