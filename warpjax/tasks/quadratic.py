"""Quadratic tasks, whose adapted points and meta-gradients are known exactly.

A batch is `(A, b)` and the loss is `1/2 |A phi - b|^2`; the query is another such batch `(C, c)`. Below `H = A^T A`,
`theta` is the initial point and `lambda` (`prox`) the weight of the proximal term `lambda/2 |phi - theta|^2`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.types import Aux, Batch, PyTree, Task, TaskSampler


def sampler(dim: int = 10, *, condition_number: float = 10.0, noise: float = 0.1) -> TaskSampler:
  """Least-squares tasks: `b = A w + noise`, a new `w ~ N(0, I)` for every key, shared by support and query.

  Args:
    dim: Size of phi; A is `[dim, dim]` with singular values log-spaced from 1 down, between random rotations.
    condition_number: Largest over smallest eigenvalue of H.
    noise: Standard deviation of the noise in b.

  Returns:
    A sampler of `Task(support=(A, b), query=(C, c))`, A and C `[dim, dim]`, b and c `[dim]`.

  Raises:
    ValueError: for a dim below 1, a condition number below 1, or negative noise.

  Example:
    >>> import jax
    >>> (matrix, target), query = sampler(4)(jax.random.key(0))
    >>> matrix.shape, target.shape
    ((4, 4), (4,))
  """
  check_count("dim", dim)
  if condition_number < 1:
    raise ValueError(f"condition_number must be at least 1; got {condition_number}")
  if noise < 0:
    raise ValueError(f"noise must not be negative; got {noise}")

  def batch(key: jax.Array, solution: jax.Array) -> tuple[jax.Array, jax.Array]:
    left_key, right_key, noise_key = jax.random.split(key, 3)
    singular_values = jnp.asarray(condition_number, float) ** -jnp.linspace(0, 0.5, dim)
    left, right = jax.random.orthogonal(left_key, dim), jax.random.orthogonal(right_key, dim)
    matrix = (left * singular_values[None]) @ right
    return matrix, matrix @ solution + noise * jax.random.normal(noise_key, (dim,))

  def sample(key: jax.Array) -> Task:
    solution_key, support_key, query_key = jax.random.split(key, 3)
    solution = jax.random.normal(solution_key, (dim,))
    return Task(batch(support_key, solution), batch(query_key, solution))

  return jax.tree_util.Partial(sample)


def loss(params: jax.Array, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
  """`1/2 |A phi - b|^2`, a `LossFn` with no shared parameters and no aux.

  Args:
    params: phi, `[dim]`.
    shared: Not used.
    batch: A `[rows, dim]` and b `[rows]`.

  Returns:
    The loss, and no aux.
  """
  del shared
  matrix, target = batch
  return 0.5 * jnp.sum((matrix @ params - target) ** 2), {}


def descent_point(
  task: Task, initial: jax.Array, *, learning_rate: float, num_steps: int, prox: float = 0.0
) -> jax.Array:
  """The end point of `num_steps` gradient steps from `initial` on the support loss, with its proximal term.

  `phi_k = V (p^k V^T theta + s V^T (A^T b + lambda theta))`, where `H = V h V^T`, `p = 1 - alpha (h + lambda)` and
  `s = alpha (1 + p + ... + p^(k-1))`: no iteration.

  Args:
    task: A quadratic task.
    initial: theta, `[dim]`.
    learning_rate: alpha.
    num_steps: k.
    prox: lambda.

  Returns:
    phi_k, `[dim]`.
  """
  vectors, power, total = _spectrum(task, learning_rate, num_steps, prox)
  matrix, target = task.support
  force = matrix.T @ target + prox * initial
  return vectors @ (power * (vectors.T @ initial) + total * (vectors.T @ force))


def unrolled_meta_gradient(
  task: Task, initial: jax.Array, *, learning_rate: float, num_steps: int, prox: float = 0.0
) -> jax.Array:
  """The gradient in `initial` of the query loss at `descent_point`.

  `V (p^k + lambda s) V^T C^T (C phi_k - c)`, in the symbols of `descent_point`.

  Args:
    task: A quadratic task.
    initial: theta, `[dim]`.
    learning_rate: alpha.
    num_steps: k.
    prox: lambda.

  Returns:
    The meta-gradient, `[dim]`.
  """
  vectors, power, total = _spectrum(task, learning_rate, num_steps, prox)
  point = descent_point(task, initial, learning_rate=learning_rate, num_steps=num_steps, prox=prox)
  return vectors @ ((power + prox * total) * (vectors.T @ _gradient(task.query, point)))


def prox_point(task: Task, initial: jax.Array, *, prox: float) -> jax.Array:
  """`argmin 1/2 |A phi - b|^2 + lambda/2 |phi - theta|^2 = (H + lambda I)^-1 (A^T b + lambda theta)`.

  Args:
    task: A quadratic task.
    initial: theta, `[dim]`.
    prox: lambda, positive unless H is invertible.

  Returns:
    phi*, `[dim]`.
  """
  matrix, target = task.support
  return jnp.linalg.solve(_damped(matrix, prox), matrix.T @ target + prox * initial)


def implicit_meta_gradient(task: Task, initial: jax.Array, *, prox: float) -> jax.Array:
  """The gradient in `initial` of the query loss at `prox_point`: `lambda (H + lambda I)^-1 C^T (C phi* - c)`.

  Args:
    task: A quadratic task.
    initial: theta, `[dim]`.
    prox: lambda.

  Returns:
    The meta-gradient, `[dim]`.

  Reference:
    Rajeswaran, Finn, Kakade, Levine 2019, arXiv 1909.04630, equation 6.
  """
  outer = _gradient(task.query, prox_point(task, initial, prox=prox))
  return prox * jnp.linalg.solve(_damped(task.support[0], prox), outer)


def _gradient(batch: Batch, point: jax.Array) -> jax.Array:
  matrix, target = batch
  return matrix.T @ (matrix @ point - target)


def _damped(matrix: jax.Array, prox: float) -> jax.Array:
  return matrix.T @ matrix + prox * jnp.eye(matrix.shape[1], dtype=matrix.dtype)


def _spectrum(task: Task, learning_rate: float, num_steps: int, prox: float) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Eigenvectors of H; `p^k` and `alpha (1 + p + ... + p^(k-1))` for each."""
  matrix = task.support[0]
  values, vectors = jnp.linalg.eigh(_damped(matrix, prox))
  factor = 1 - learning_rate * values
  power = factor**num_steps
  # The sum is (1 - p^k) / (h + lambda), and alpha k in the limit of a flat direction.
  flat = values < jnp.finfo(values.dtype).eps * values[-1]
  return vectors, power, jnp.where(flat, learning_rate * num_steps, (1 - power) / jnp.where(flat, 1.0, values))
