"""MAML++'s per-step scales and offsets of batch norm: parameters with a meta-learned value for every inner step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_count
from warpjax.types import Params, PyTree, UpdateRule


def per_step_values(num_steps: int) -> UpdateRule:
  """`theta_k = v_k`: these parameters do not adapt, and have a learned value at every point of the inner loop.

  v_0 is `initial`, and v_1 to v_{K-1} are the rule's parameters; the points from K on have v_{K-1}. So the support loss
  of step k uses v_k, and the query loss after the last step uses v_{K-1}, as in the released code. In a multi-step loss
  the query loss after an earlier step k uses v_k in the released code; in this rule it uses v_{k+1}, like every loss at
  that point.

  Args:
    num_steps: K, steps with a value of their own; at least 2, as the first has the initial parameters.

  Returns:
    An `UpdateRule`, to be masked to some of the parameters; its rule parameters are a tree like theirs, of leaves
    `[num_steps - 1, ...]`, which start as copies.

  Raises:
    ValueError: when `num_steps` is below 2.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from warpjax.rules import chain, masked, per_step_sgd
    >>> norm = {"kernel": False, "scale": True}
    >>> others = {"kernel": True, "scale": False}
    >>> rule = chain(masked(per_step_sgd(0.1, 3), others), masked(per_step_values(3), norm))
    >>> rule.init(jax.random.key(0), {"kernel": jnp.zeros((2, 2)), "scale": jnp.ones(2)})[1]["scale"].shape
    (2, 2)

  Reference:
    Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, section 4 (BNWB), and its released code.
  """
  check_count("num_steps", num_steps, least=2)  # the first step has the initial parameters

  def init(key: jax.Array, params: Params) -> PyTree:
    del key
    return jax.tree.map(lambda p: jnp.broadcast_to(p, (num_steps - 1, *jnp.shape(p))), params)

  def transform(values: PyTree) -> optax.GradientTransformation:
    def update(grads: PyTree, count: jax.Array, params: Params | None = None) -> tuple[PyTree, jax.Array]:
      if params is None:
        raise ValueError("per_step_values needs the parameters that it replaces; got None")
      index = jnp.minimum(count, num_steps - 2)
      return jax.tree.map(lambda v, p: v[index] - p, values, params), optax.safe_increment(count)

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

  return UpdateRule(init, transform, name="per_step_values", finite_at_zero=True)
