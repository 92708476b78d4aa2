"""The geometry that a warp induces: descent in theta is preconditioned descent in gamma = Omega(theta).

With J = d Omega / d theta, a step `theta - alpha grad (L o Omega)(theta)` moves gamma by `-alpha J J^T grad L(gamma)`,
up to O(alpha^2): the preconditioner is `G^{-1} = J J^T`, the inverse of the metric that the warp lays over the surface.

Reference: Flennerhag et al. 2020, arXiv 1909.00025, equations 8 to 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from warpjax.types import Params, PyTree

Warp = Callable[[Params], PyTree]
"""`(theta) -> gamma`, pytrees: an explicit warp, or a warped network as a function of its task parameters."""


def network_warp(apply: Callable[[Params, PyTree, jax.Array], PyTree], shared: PyTree, x: jax.Array) -> Warp:
  """A warped network as a warp: gamma is its outputs on `x`, so that `G^{-1}` preconditions descent on the outputs.

  Args:
    apply: `(params, shared, x) -> outputs`; any activation will do, such as that behind one warp-layer.
    shared: The warp-layers' parameters.
    x: Inputs, `[batch, ...]`.

  Returns:
    A `Warp` of the task parameters.

  Example:
    >>> warp = network_warp(lambda params, shared, x: x @ params @ shared, 2.0 * jnp.eye(2), jnp.ones((3, 1)))
    >>> warp(jnp.ones((1, 2))).shape
    (3, 2)
  """
  return lambda params: apply(params, shared, x)


def precondition(warp: Warp, params: Params, vector: PyTree) -> PyTree:
  """`G^{-1} v = J (J^T v)`, by one vjp and one jvp; nothing is formed.

  Args:
    warp: `(theta) -> gamma`.
    params: The point theta.
    vector: A tree of gamma's structure, such as the gradient of a loss in gamma.

  Returns:
    A tree of gamma's structure.

  Example:
    >>> precondition(lambda theta: jnp.array([[2.0, 0.0], [1.0, 1.0]]) @ theta, jnp.zeros(2), jnp.array([1.0, 0.0]))
    Array([4., 2.], dtype=float32)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equations 8 and 10.
  """
  # JAX's gradient of complex parameters is the conjugate of the direction.
  return jax.jvp(warp, (params,), (jax.tree.map(jnp.conj, pull_back(warp, params, vector)),))[1]


def pull_back(warp: Warp, params: Params, vector: PyTree) -> Params:
  """`J^T v`: the gradient in theta that a gradient `v` in gamma becomes.

  Args:
    warp: `(theta) -> gamma`.
    params: The point theta.
    vector: A tree of gamma's structure.

  Returns:
    A tree of theta's structure.

  Example:
    >>> pull_back(lambda theta: jnp.array([[2.0, 0.0], [1.0, 1.0]]) @ theta, jnp.zeros(2), jnp.array([1.0, 0.0]))
    Array([2., 0.], dtype=float32)
  """
  return jax.vjp(warp, params)[1](vector)[0]


def jacobian(warp: Warp, params: Params) -> jax.Array:
  """J, dense, `[size of gamma, size of theta]`, both flattened in the order of their leaves.

  Args:
    warp: `(theta) -> gamma`.
    params: The point theta.

  Returns:
    The matrix.

  Example:
    >>> jacobian(lambda theta: jnp.array([[2.0, 0.0], [1.0, 1.0]]) @ theta, jnp.zeros(2))
    Array([[2., 0.],
           [1., 1.]], dtype=float32)
  """
  flat, unravel = ravel_pytree(params)
  return jax.jacobian(lambda point: ravel_pytree(warp(unravel(point)))[0])(flat)


def preconditioner(warp: Warp, params: Params) -> jax.Array:
  """`G^{-1} = J J^T`, dense: `[size of gamma, size of gamma]`, symmetric and positive semi-definite.

  Args:
    warp: `(theta) -> gamma`.
    params: The point theta.

  Returns:
    The matrix; for many parameters use `precondition`, which never forms it.

  Example:
    >>> preconditioner(lambda theta: jnp.array([[2.0, 0.0], [1.0, 1.0]]) @ theta, jnp.zeros(2))
    Array([[4., 2.],
           [2., 2.]], dtype=float32)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equation 10.
  """
  matrix = jacobian(warp, params)
  return matrix @ matrix.T


def unit_ball(warp: Warp, params: Params, num_points: int = 64) -> jax.Array:
  """The ellipse of displacements `J u`, u on the unit circle: how far one step of unit length reaches, for plots.

  Args:
    warp: A warp of two-dimensional theta and gamma.
    params: The point theta, `[2]`.
    num_points: Points on the circle.

  Returns:
    `[num_points, 2]`, displacements in gamma.

  Raises:
    ValueError: when theta or gamma is not two-dimensional.

  Example:
    >>> ball = unit_ball(lambda theta: jnp.array([3.0, 1.0]) * theta, jnp.zeros(2), num_points=9)
    >>> ball.shape, jnp.max(ball, axis=0).tolist()
    ((9, 2), [3.0, 1.0])
  """
  matrix = jacobian(warp, params)
  if matrix.shape != (2, 2):
    raise ValueError(f"warp must map two numbers to two numbers; its Jacobian has shape {matrix.shape}")
  angle = jnp.linspace(0.0, 2 * jnp.pi, num_points)
  return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1) @ matrix.T


def spread(warp: Warp, params: Params) -> dict[str, Any]:
  """Eigenvalues of `G^{-1}` in increasing order, and their ratio: 1 where the warp turns or stretches evenly.

  Args:
    warp: `(theta) -> gamma`.
    params: The point theta.

  Returns:
    `eigenvalues`, `[size of gamma]`, and `condition`, a scalar; infinite for a warp that loses a direction.

  Example:
    >>> spectrum = spread(lambda theta: jnp.array([3.0, 1.0]) * theta, jnp.zeros(2))
    >>> spectrum["eigenvalues"].tolist(), float(spectrum["condition"])
    ([1.0, 9.0], 9.0)
  """
  eigenvalues = jnp.linalg.eigvalsh(preconditioner(warp, params))
  smallest = eigenvalues[0]
  condition = jnp.where(smallest > 0, eigenvalues[-1] / jnp.where(smallest > 0, smallest, 1.0), jnp.inf)
  return {"eigenvalues": eigenvalues, "condition": condition}
