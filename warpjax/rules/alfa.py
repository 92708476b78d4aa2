"""ALFA: a step size and a decay of every tensor, which a small network generates at each inner step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_count, check_learning_rate, check_real, is_number
from warpjax.types import Params, PyTree, UpdateRule


def alfa(learning_rate: float = 0.01, own_steps: int = 5, decay: float = 5e-4) -> UpdateRule:
  """`theta_i <- (1 - b_{k,i} v_i) theta_i - a_{k,i} (1 + u_i) g_i` for step k and tensor i; `(u, v)` are generated.

  A network of two layers, `[2N, 2N, 2N]` with a ReLU, reads the means of the N tensors and of their gradients, and
  returns u and v. The network, every `a_{k,i}` and every `b_{k,i}` are meta-learned. The second layer starts at zero,
  so that the rule starts as SGD; the paper's factor of the step size is this `1 + u`.

  Args:
    learning_rate: Where every a starts; a positive number.
    own_steps: Number of steps with an a and a b of their own; later steps use the last.
    decay: Where every b starts, in units of the learning rate; at least 0.

  Returns:
    An `UpdateRule`; its rule parameters are `learning_rate` and `decay`, trees like the parameters' of leaves
    `[own_steps]`, and the `generator`'s kernels and biases.

  Raises:
    ValueError: when the learning rate is not a positive number, `own_steps` is below 1 or `decay` below 0; when updated
      without `params`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> rule_params = alfa(0.1, 3).init(jax.random.key(0), {"b": jnp.zeros(2), "w": jnp.zeros((4, 2))})
    >>> rule_params["learning_rate"]["w"], rule_params["generator"]["hidden"]["kernel"].shape
    (Array([0.1, 0.1, 0.1], dtype=float32), (4, 4))

  Reference:
    Baik, Choi, Choi, Kim, Lee 2020, "Meta-learning with adaptive hyperparameters", arXiv 2011.00209, section 3, and its
    released code.
  """
  if callable(learning_rate):
    raise ValueError(f"learning_rate must be a positive number, where every step's own starts; got {learning_rate!r}")
  check_learning_rate(learning_rate)
  check_count("own_steps", own_steps)
  if not is_number(decay) or not 0 <= decay < float("inf"):
    raise ValueError(f"decay must be finite and at least 0; got {decay!r}")

  def init(key: jax.Array, params: Params) -> PyTree:
    check_real("alfa", params)
    width = 2 * len(jax.tree.leaves(params))
    dtype = jnp.result_type(*jax.tree.leaves(params))
    each = lambda value: jax.tree.map(lambda p: jnp.full(own_steps, value, jnp.result_type(p)), params)
    kernel = jax.nn.initializers.lecun_normal()(key, (width, width), dtype)
    hidden = {"kernel": kernel, "bias": jnp.zeros(width, dtype)}
    output = {"kernel": jnp.zeros((width, width), dtype), "bias": jnp.zeros(width, dtype)}
    steps = {"learning_rate": each(learning_rate), "decay": each(learning_rate * decay)}
    return {**steps, "generator": {"hidden": hidden, "output": output}}

  def transform(learned: PyTree) -> optax.GradientTransformation:
    def update(grads: PyTree, count: jax.Array, params: Params | None = None) -> tuple[PyTree, jax.Array]:
      if params is None:
        raise ValueError("alfa needs the parameters, whose means it reads; got None")
      index = jnp.minimum(count, own_steps - 1)
      faster, decayed = _generated(learned["generator"], params, grads)

      def step(rate: jax.Array, decay: jax.Array, u: jax.Array, v: jax.Array, p: jax.Array, g: jax.Array) -> jax.Array:
        return (-decay[index] * v * p - rate[index] * (1 + u) * g).astype(g.dtype)

      own = (learned["learning_rate"], learned["decay"])
      return jax.tree.map(step, *own, faster, decayed, params, grads), optax.safe_increment(count)

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)

  return UpdateRule(init, transform, name="alfa", finite_at_zero=True)


def _generated(weights: PyTree, params: Params, grads: PyTree) -> tuple[Any, Any]:
  """The factors u of the step sizes and v of the decays: a scalar for each tensor, in trees like the parameters'."""
  leaves, treedef = jax.tree.flatten(params)
  means = jnp.stack([jnp.mean(leaf) for leaf in (*leaves, *jax.tree.leaves(grads))])
  hidden = jax.nn.relu(means @ weights["hidden"]["kernel"] + weights["hidden"]["bias"])
  factors = hidden @ weights["output"]["kernel"] + weights["output"]["bias"]
  return jax.tree.unflatten(treedef, factors[: len(leaves)]), jax.tree.unflatten(treedef, factors[len(leaves) :])
