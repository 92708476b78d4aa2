"""Meta-SGD: a meta-learned step size for every parameter."""

from __future__ import annotations

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.numerics import real_dtype
from warpjax.types import Params, PyTree, UpdateRule


def meta_sgd(learning_rate: float | tuple[float, float] = (0.005, 0.1)) -> UpdateRule:
  """`theta <- theta - alpha (.) g`, alpha of theta's shape, its sign free; alpha is meta-learned.

  Args:
    learning_rate: Where every alpha starts: one number, or the bounds `(low, high)` of a uniform draw.

  Returns:
    An `UpdateRule` whose rule parameters are the alpha tree itself.

  Raises:
    ValueError: when `learning_rate` is neither a number nor two increasing numbers.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> meta_sgd(0.1).init(jax.random.key(0), {"w": jnp.zeros(2)})
    {'w': Array([0.1, 0.1], dtype=float32)}

  Reference:
    Li, Zhou, Chen, Li 2017, arXiv 1707.09835, equation 2.
  """
  low, high = _bounds(learning_rate)

  def init(key: jax.Array, params: Params) -> PyTree:
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))
    dtypes = [real_dtype(jnp.result_type(p)) for p in leaves]
    draws = [
      jax.random.uniform(k, jnp.shape(p), dtype, low, high) for k, p, dtype in zip(keys, leaves, dtypes, strict=False)
    ]
    constant = [jnp.full(jnp.shape(p), low, dtype) for p, dtype in zip(leaves, dtypes, strict=True)]
    return jax.tree.unflatten(treedef, constant if low == high else draws)

  def transform(alpha: PyTree) -> optax.GradientTransformation:
    return optax.stateless(lambda grads, params: jax.tree.map(lambda a, g: -a * g, alpha, grads))

  return UpdateRule(init, transform, name="meta_sgd", finite_at_zero=True)


def _bounds(learning_rate: Any) -> tuple[float, float]:
  bounds: Any = (learning_rate,) * 2 if isinstance(learning_rate, numbers.Real) else learning_rate
  two = isinstance(bounds, (tuple, list)) and len(bounds) == 2 and all(isinstance(b, numbers.Real) for b in bounds)
  if not two or not -float("inf") < bounds[0] <= bounds[1] < float("inf"):
    raise ValueError(f"learning_rate must be a number or increasing bounds (low, high); got {learning_rate!r}")
  return tuple(bounds)
