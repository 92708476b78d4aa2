"""Rules without meta-learned parameters: optax transformations as they are."""

from __future__ import annotations

from typing import Any

import jax
import optax

from warpjax.rules.checks import check_learning_rate
from warpjax.types import Params, PyTree, UpdateRule


def from_optax(transformation: optax.GradientTransformation, *, differentiable: bool = True) -> UpdateRule:
  """Any optax transformation as an update rule; its rule parameters are `()`.

  Args:
    transformation: For example `optax.sgd(0.1, momentum=0.9)`. Value-driven ones (L-BFGS) get `value`, `grad`
      and `value_fn`.
    differentiable: False when the transformation cannot be differentiated (a line search); `unrolled` then
      refuses the rule.

  Returns:
    An `UpdateRule`.

  Raises:
    ValueError: when `transformation` is not an optax transformation.

  Example:
    >>> import jax, optax
    >>> from_optax(optax.sgd(0.1)).init(jax.random.key(0), {"w": 1.0})
    ()
  """
  if not (hasattr(transformation, "init") and hasattr(transformation, "update")):
    raise ValueError(f"transformation must be an optax.GradientTransformation; got {transformation!r}")
  return UpdateRule(_no_parameters, lambda rule_params: transformation, differentiable, "from_optax")


def sgd(learning_rate: Any, momentum: float | None = None, *, nesterov: bool = False) -> UpdateRule:
  """Gradient descent, `theta <- theta - learning_rate * g`, on mean losses.

  Args:
    learning_rate: A positive number, or an optax schedule over inner steps.
    momentum: Decay of the momentum buffer, or None.
    nesterov: Whether the momentum looks ahead.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule.

  Example:
    >>> sgd(0.4).name
    'sgd'
  """
  check_learning_rate(learning_rate)
  transformation = optax.sgd(learning_rate, momentum, nesterov)
  return UpdateRule(_no_parameters, lambda rule_params: transformation, name="sgd")


def adam(
  learning_rate: Any, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 1e-8
) -> UpdateRule:
  """Adam, safe to differentiate through: `m / (sqrt(v + eps_root) + eps)`.

  With `eps_root = 0` the derivative at a zero gradient is NaN (the square root's), so the default is not zero;
  it caps the step of coordinates whose root mean square gradient is below 1e-4. Reptile uses `b1=0, eps_root=0`,
  which is safe there since nothing is unrolled.

  Args:
    learning_rate: A positive number, or an optax schedule over inner steps.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added outside the root.
    eps_root: Added inside the root.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule.

  Example:
    >>> adam(1e-3, b1=0.0).name
    'adam'

  Reference:
    Kingma and Ba 2015, arXiv 1412.6980.
  """
  check_learning_rate(learning_rate)
  transformation = optax.adam(learning_rate, b1, b2, eps, eps_root)
  return UpdateRule(_no_parameters, lambda rule_params: transformation, name="adam")


def _no_parameters(key: jax.Array, params: Params) -> PyTree:
  del key, params
  return ()
