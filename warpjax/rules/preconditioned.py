"""Explicitly preconditioned descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from warpjax.checks import check_learning_rate
from warpjax.types import Params, PyTree, Scalar, UpdateRule


def preconditioned(
  matvec: Callable[[PyTree, Params, PyTree], PyTree],
  learning_rate: Scalar = 1.0,
  init: Callable[[jax.Array, Params], PyTree] | None = None,
) -> UpdateRule:
  """`theta <- theta - learning_rate * P(theta; rule_params) g`.

  Warp-layers precondition through the loss, without this rule; it is the explicit form, for comparison.

  Args:
    matvec: `(rule_params, params, grads) -> P grads`.
    learning_rate: A positive number.
    init: `(key, params) -> rule_params`, the meta-learned parameters of P; None for none.

  Returns:
    An `UpdateRule`.

  Raises:
    ValueError: when `matvec` is not a function or the learning rate is not positive.

  Example:
    >>> preconditioned(lambda rule_params, params, grads: 2.0 * grads).name
    'preconditioned'

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equation 3.
  """
  if not callable(matvec):
    raise ValueError(f"matvec must be a function (rule_params, params, grads) -> grads; got {matvec!r}")
  if callable(learning_rate):
    raise ValueError(
      f"learning_rate must be a positive number (a schedule may be chained after it); got {learning_rate!r}"
    )
  check_learning_rate(learning_rate)

  def transform(rule_params: PyTree) -> optax.GradientTransformation:
    def update(grads: PyTree, params: Any) -> PyTree:
      return jax.tree.map(lambda leaf: -learning_rate * leaf, matvec(rule_params, params, grads))

    return optax.stateless(update)

  return UpdateRule(init or (lambda key, params: ()), transform, name="preconditioned")
