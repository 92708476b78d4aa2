"""A meta-learned rule as an optimizer for any training loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.types import Params, PyTree, UpdateRule


def as_optax(rule: UpdateRule, rule_params: PyTree) -> optax.GradientTransformationExtraArgs:
  """Makes an optax optimizer of a rule and its meta-learned parameters; its steps equal those of the inner loop.

  Args:
    rule: The rule.
    rule_params: Its parameters, `state.meta_params.rule`.

  Returns:
    An optax optimizer. `update(grads, state, params, value=loss)` for rules that read the loss (`meta_lstm`).

  Raises:
    ValueError: when `rule` is not an UpdateRule; from `init`, when the rule's parameters do not fit the parameters.

  Example:
    >>> import jax.numpy as jnp, optax
    >>> from warpjax.rules import meta_sgd
    >>> params, grads = {"w": jnp.ones(2)}, {"w": jnp.ones(2)}
    >>> optimizer = as_optax(meta_sgd(), {"w": jnp.array([0.1, 0.2])})
    >>> updates, _ = optimizer.update(grads, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)
    {'w': Array([0.9, 0.8], dtype=float32)}
  """
  if not isinstance(rule, UpdateRule):
    raise ValueError(f"rule must be an UpdateRule; got {rule!r}")
  transformation = optax.with_extra_args_support(rule.transform(rule_params))

  def init(params: Params) -> PyTree:
    expected = _shapes(jax.eval_shape(rule.init, jax.random.key(0), params))
    if _shapes(rule_params) != expected:
      raise ValueError(
        f"rule_params must be those that {rule.name} has for these parameters, of shapes {expected}; "
        f"got {_shapes(rule_params)}"
      )
    return transformation.init(params)

  return optax.GradientTransformationExtraArgs(init, transformation.update)


def _shapes(tree: PyTree) -> Any:
  return jax.tree.map(jnp.shape, tree)
