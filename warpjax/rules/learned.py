"""Any optax transformation with meta-learned hyper-parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.numerics import cast_like
from warpjax.types import Params, PyTree, UpdateRule


def learned(
  factory: Callable[..., optax.GradientTransformation], *, positive: Sequence[str] = (), **hyperparameters: float
) -> UpdateRule:
  """`factory(**hyperparameters)`, the hyper-parameters meta-learned; schedules of them are learned through.

  Adam needs an `eps_root`, `lambda learning_rate: optax.adam(learning_rate, eps_root=1e-8)`: without one the
  meta-gradient of a step at a zero gradient, as every dead unit has, is NaN.

  Args:
    factory: Makes an optax transformation of its keyword arguments, such as `optax.sgd`.
    positive: Which of them are meta-learned by their logarithm, so that they stay positive.
    **hyperparameters: Where each starts. Others are closed over, as a lambda's or a partial's.

  Returns:
    An `UpdateRule`; its rule parameters are a dict of scalars, logarithms for those in `positive`.

  Raises:
    ValueError: when there is none, one is not finite, the factory does not take it, or one in `positive` is not.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> rule = learned(optax.sgd, learning_rate=0.1, momentum=0.5)
    >>> rule.init(jax.random.key(0), jnp.zeros(3))
    {'learning_rate': Array(0.1, dtype=float32), 'momentum': Array(0.5, dtype=float32)}
  """
  _check(factory, positive, hyperparameters)

  def init(key: jax.Array, params: Params) -> PyTree:
    del key
    dtype = jnp.result_type(*jax.tree.leaves(params))
    start = {name: math.log(value) if name in positive else value for name, value in hyperparameters.items()}
    return {name: jnp.asarray(value, dtype) for name, value in start.items()}

  def transform(rule_params: PyTree) -> optax.GradientTransformation:
    made = factory(**{name: jnp.exp(v) if name in positive else v for name, v in rule_params.items()})
    update = optax.with_extra_args_support(made).update

    def in_its_dtypes(grads: Params, state: PyTree, params: Params | None = None, **extra: Any) -> Any:
      updates, after = update(grads, state, params, **extra)
      return updates, cast_like(after, state)  # beside parameters of less precision a hyper-parameter has more

    return optax.GradientTransformationExtraArgs(made.init, in_its_dtypes)

  return UpdateRule(init, transform, name="learned")


def _check(factory: Any, positive: Sequence[str], hyperparameters: dict[str, float]) -> None:
  if not callable(factory):
    raise ValueError(f"factory must be a function that makes an optax transformation; got {factory!r}")
  if not hyperparameters:
    raise ValueError("learned needs a hyper-parameter to learn, such as learning_rate=0.1; got none")
  for name, value in hyperparameters.items():
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
      raise ValueError(f"{name} must be a finite number, where it starts; got {value!r}")
    if name in positive and value <= 0:
      raise ValueError(f"{name} must start above 0, as it is in positive; got {value!r}")
  for name in positive:
    if name not in hyperparameters:
      raise ValueError(f"positive must name hyper-parameters among {', '.join(hyperparameters)}; got {name!r}")
  try:
    inspect.signature(factory).bind(**hyperparameters)
  except TypeError as error:
    raise ValueError(f"factory cannot be called with {', '.join(hyperparameters)}: {error}") from None
