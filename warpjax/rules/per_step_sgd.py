"""LSLR of MAML++: a meta-learned step size for every tensor and inner step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_count, check_learning_rate
from warpjax.numerics import real_dtype
from warpjax.types import Params, PyTree, UpdateRule


def per_step_sgd(learning_rate: float, num_steps: int) -> UpdateRule:
  """`theta_{k+1} <- theta_k - alpha_k g_k`, one alpha for each tensor and step; later steps use the last.

  Args:
    learning_rate: Where every alpha starts; a positive number.
    num_steps: Number of steps with an alpha of their own.

  Returns:
    An `UpdateRule`; its rule parameters are a tree like the parameters', of leaves `[num_steps]`.

  Raises:
    ValueError: when the learning rate is not a positive number or `num_steps` is below 1.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> per_step_sgd(0.1, 3).init(jax.random.key(0), {"w": jnp.zeros((2, 2))})
    {'w': Array([0.1, 0.1, 0.1], dtype=float32)}

  Reference:
    Antoniou, Edwards, Storkey 2019, "How to train your MAML", arXiv 1810.09502, section 4 (LSLR).
  """
  if callable(learning_rate):
    raise ValueError(f"learning_rate must be a positive number, where every step's own starts; got {learning_rate!r}")
  check_learning_rate(learning_rate)
  check_count("num_steps", num_steps)

  def init(key: jax.Array, params: Params) -> PyTree:
    del key
    return jax.tree.map(lambda p: jnp.full(num_steps, learning_rate, real_dtype(jnp.result_type(p))), params)

  def transform(alpha: PyTree) -> optax.GradientTransformation:
    def update(grads: PyTree, count: jax.Array, params: Params | None = None) -> tuple[PyTree, jax.Array]:
      del params
      index = jnp.minimum(count, num_steps - 1)
      return jax.tree.map(lambda a, g: -a[index] * g, alpha, grads), optax.safe_increment(count)

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

  return UpdateRule(init, transform, name="per_step_sgd", finite_at_zero=True)
