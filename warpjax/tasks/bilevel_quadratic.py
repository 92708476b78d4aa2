"""Bilevel quadratics: the hypergradient of the shared parameters is known exactly.

`g(theta, phi) = 1/2 theta^T A theta + theta^T (B phi + a)` is the inner loss on the batch `(A, B, a)`, and
`f(theta, phi) = 1/2 |theta - t|^2 + 1/2 |C phi - c|^2` the query loss on `(t, C, c)`; phi is `shared`. The inner loop
may add its proximal term `lambda/2 |theta - theta_0|^2`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax.checks import check_counts
from warpjax.types import Aux, Batch, Task, TaskSampler


def sampler(dim: int = 20, outer_dim: int = 10, *, condition_number: float = 10.0) -> TaskSampler:
  """Random bilevel quadratics.

  Args:
    dim: Size of theta; A has eigenvalues log-spaced from 1 down.
    outer_dim: Size of phi.
    condition_number: Largest over smallest eigenvalue of A.

  Returns:
    A sampler of `Task(support=(A, B, a), query=(t, C, c))`.

  Raises:
    ValueError: for a size or a condition number below 1.

  Example:
    >>> (a, b, _), _ = sampler(4, 3)(jax.random.key(0))
    >>> a.shape, b.shape
    ((4, 4), (4, 3))
  """
  check_counts(dim=dim, outer_dim=outer_dim)
  if condition_number < 1:
    raise ValueError(f"condition_number must be at least 1; got {condition_number}")

  def sample(key: jax.Array) -> Task:
    basis_key, *keys = jax.random.split(key, 6)
    basis = jax.random.orthogonal(basis_key, dim)
    values = jnp.asarray(condition_number, float) ** -jnp.linspace(0, 1, dim)
    shapes = ((dim, outer_dim), (dim,), (dim,), (outer_dim, outer_dim), (outer_dim,))
    mixed, linear, target, outer, constant = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    scale = outer_dim**-0.5
    return Task(((basis * values[None]) @ basis.T, scale * mixed, linear), (target, scale * outer, constant))

  return jax.tree_util.Partial(sample)


def loss(theta: jax.Array, phi: jax.Array, batch: Batch) -> tuple[jax.Array, Aux]:
  """The inner loss g, a `LossFn`.

  Args:
    theta: The inner parameters, `[dim]`.
    phi: The outer parameters.
    batch: `(A, B, a)`.

  Returns:
    The loss, and no aux.
  """
  curvature, mixed, linear = batch
  return 0.5 * theta @ curvature @ theta + theta @ (mixed @ phi + linear), {}


def query_loss(theta: jax.Array, phi: jax.Array, batch: Batch) -> tuple[jax.Array, Aux]:
  """The query loss f, a `LossFn`.

  Args:
    theta: The inner parameters, `[dim]`.
    phi: The outer parameters.
    batch: The target of theta, and the matrix and vector of the least squares in phi.

  Returns:
    The loss, and no aux.
  """
  target, outer, constant = batch
  return 0.5 * jnp.sum((theta - target) ** 2) + 0.5 * jnp.sum((outer @ phi - constant) ** 2), {}


def solution(task: Task, initial: jax.Array, phi: jax.Array, *, prox: float = 0.0) -> jax.Array:
  """`theta* = (A + lambda I)^-1 (lambda theta_0 - B phi - a)`.

  Args:
    task: A bilevel quadratic.
    initial: theta_0.
    phi: The outer variable.
    prox: lambda.

  Returns:
    The minimum of the inner problem.
  """
  curvature, mixed, linear = task.support
  return jnp.linalg.solve(_damped(curvature, prox), prox * initial - mixed @ phi - linear)


def hypergradient(task: Task, initial: jax.Array, phi: jax.Array, *, prox: float = 0.0) -> jax.Array:
  """`C^T (C phi - c) - B^T (A + lambda I)^-1 (theta* - t)`: the gradient of `f(theta*(phi), phi)` in phi.

  Args:
    task: A bilevel quadratic.
    initial: theta_0.
    phi: The outer variable.
    prox: lambda.

  Returns:
    The hypergradient, of the shape of phi.
  """
  curvature, mixed, _ = task.support
  target, outer, constant = task.query
  adjoint = jnp.linalg.solve(_damped(curvature, prox), solution(task, initial, phi, prox=prox) - target)
  return outer.T @ (outer @ phi - constant) - mixed.T @ adjoint


def minimum(task: Task, initial: jax.Array, *, prox: float = 0.0) -> jax.Array:
  """The phi where the hypergradient, which is linear in phi, is zero.

  Args:
    task: A bilevel quadratic.
    initial: theta_0.
    prox: lambda.

  Returns:
    The solution of the bilevel problem.
  """
  slope = lambda phi: hypergradient(task, initial, phi, prox=prox)
  zero = jnp.zeros(task.support[1].shape[1], task.support[1].dtype)
  return jnp.linalg.solve(jax.jacobian(slope)(zero), -slope(zero))


def _damped(curvature: jax.Array, prox: float) -> jax.Array:
  return curvature + prox * jnp.eye(curvature.shape[0], dtype=curvature.dtype)
