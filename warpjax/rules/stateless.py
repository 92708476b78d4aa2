"""Rules without meta-learned parameters: unchanged optax transformations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_learning_rate, is_number
from warpjax.types import Params, PyTree, Rate, Scalar, UpdateRule


def from_optax(transformation: optax.GradientTransformation, *, differentiable: bool = True) -> UpdateRule:
  """Any optax transformation as an update rule; its rule parameters are `()`.

  An estimator that differentiates the rule tries its derivative at a zero gradient when it is traced. It refuses rules
  without a finite derivative there: optax's Adam and its variants without an `eps_root`, and rules that divide by the
  norm of a tensor.
  `rules.adam`, `adamw` and the other rules of this package are safe.

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
  return UpdateRule(no_parameters, lambda rule_params: transformation, differentiable, "from_optax")


def sgd(learning_rate: Rate, momentum: Scalar | None = None, *, nesterov: bool = False) -> UpdateRule:
  """Gradient descent, `theta <- theta - learning_rate * g`, on mean losses.

  Args:
    learning_rate: A positive number, or an optax schedule over inner steps.
    momentum: Decay of the momentum buffer, or None.
    nesterov: Whether the momentum looks ahead.

  Returns:
    An `UpdateRule` with rule parameters `()`.

  Raises:
    ValueError: when the learning rate is not a positive number or a schedule, or `nesterov` has no momentum.

  Example:
    >>> sgd(0.4).name
    'sgd'
  """
  check_learning_rate(learning_rate)
  if nesterov and momentum is None:
    raise ValueError("nesterov must be False without momentum; got True and None")
  transformation = optax.sgd(learning_rate, momentum, nesterov)
  return UpdateRule(no_parameters, lambda rule_params: transformation, name="sgd", finite_at_zero=True)


def clip_by_global_norm(max_norm: float) -> UpdateRule:
  """`g min(1, max_norm / |g|)`, |g| over all parameters, safe to differentiate through.

  It equals `optax.clip_by_global_norm`, whose derivative is NaN if the whole gradient is zero.

  Args:
    max_norm: A positive number.

  Returns:
    An `UpdateRule` with rule parameters `()`, to put first in a `chain`.

  Raises:
    ValueError: when `max_norm` is not positive.

  Example:
    >>> from warpjax.rules import chain
    >>> chain(clip_by_global_norm(1.0), sgd(0.1)).name
    'chain(clip_by_global_norm, sgd)'

  Reference:
    Pascanu, Mikolov, Bengio 2013, arXiv 1211.5063, algorithm 1.
  """
  if not is_number(max_norm) or not 0 < max_norm < float("inf"):
    raise ValueError(f"max_norm must be a positive number; got {max_norm!r}")

  def clip(grads: PyTree, params: Any) -> PyTree:
    del params
    squared = optax.tree.norm(grads, squared=True)
    over = squared > max_norm**2
    # The root is only taken where its slope is finite; masking an infinite slope would give NaN.
    scale = jnp.where(over, max_norm / jnp.sqrt(jnp.where(over, squared, 1.0)), 1.0)
    return jax.tree.map(lambda leaf: leaf * scale.astype(jnp.real(leaf).dtype), grads)

  transformation = optax.stateless(clip)
  return UpdateRule(no_parameters, lambda rule_params: transformation, name="clip_by_global_norm", finite_at_zero=True)


def no_parameters(key: jax.Array, params: Params) -> PyTree:
  """The `init` of a rule without rule parameters."""
  del key, params
  return ()
