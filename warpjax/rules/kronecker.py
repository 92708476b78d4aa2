"""Meta-Curvature: a meta-learned preconditioner, a Kronecker product of small matrices for every tensor."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from warpjax.rules.preconditioned import preconditioned
from warpjax.types import Params, PyTree, UpdateRule


def kronecker(learning_rate: float = 0.1) -> UpdateRule:
  """`theta <- theta - learning_rate * (M_spatial (x) M_in (x) M_out) vec(g)`, the matrices meta-learned from identity.

  A convolution's kernel `[..., in, out]` has a matrix for its spatial positions taken together, one for its input and
  one for its output channels; a dense kernel `[in, out]` has two; a vector has one.

  Args:
    learning_rate: A positive number, the step size of the identity.

  Returns:
    An `UpdateRule`; its rule parameters hold, for each parameter, the tuple of its matrices.

  Raises:
    ValueError: when the learning rate is not a positive number.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> matrices = kronecker(0.1).init(jax.random.key(0), {"kernel": jnp.zeros((3, 3, 8, 16))})
    >>> [matrix.shape for matrix in matrices["kernel"]]
    [(9, 9), (8, 8), (16, 16)]

  Reference:
    Park and Oliva 2019, "Meta-Curvature", arXiv 1902.03356, equation 6.
  """

  def init(key: jax.Array, params: Params) -> PyTree:
    del key
    return jax.tree.map(lambda p: tuple(jnp.eye(n, dtype=jnp.result_type(p)) for n in _modes(jnp.shape(p))), params)

  def matvec(matrices: PyTree, params: Params, grads: PyTree) -> PyTree:
    del params
    return jax.tree.map(_multiply, grads, matrices)

  return preconditioned(matvec, learning_rate, init)._replace(name="kronecker", finite_at_zero=True)


def _multiply(grad: jax.Array, matrices: tuple[jax.Array, ...]) -> jax.Array:
  tensor = grad.reshape(_modes(grad.shape))
  for axis, matrix in enumerate(matrices):
    tensor = jnp.moveaxis(jnp.tensordot(matrix, tensor, axes=(1, axis)), 0, axis)
  return tensor.reshape(grad.shape)


def _modes(shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape with all but the last two axes as one; a scalar is a vector of one."""
  return (math.prod(shape[:-2]), *shape[-2:]) if len(shape) > 2 else shape or (1,)
