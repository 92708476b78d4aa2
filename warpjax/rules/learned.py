"""Any optax transformation with meta-learned hyper-parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import is_number
from warpjax.numerics import cast_like, real_dtype
from warpjax.types import Params, PyTree, UpdateRule

Factory = Callable[..., optax.GradientTransformation | UpdateRule]


def learned(factory: Factory, *, positive: Sequence[str] = (), **hyperparameters: float) -> UpdateRule:
  """`factory(**hyperparameters)`, with meta-learned hyper-parameters, also through schedules of them.

  The factory is an optax optimizer or a rule without parameters of its own. For adaptive optimizers use the rules,
  `learned(rules.adamw, learning_rate=0.01)`: without an `eps_root` the meta-gradient of optax's Adam is NaN if a
  gradient is zero, as that of a dead unit is, and `unrolled` refuses it.

  Args:
    factory: Makes an optax transformation, or a rule, of its keyword arguments, such as `optax.sgd` or `rules.adamw`.
    positive: The hyper-parameters that are meta-learned by their logarithm, so that they stay positive.
    **hyperparameters: Their initial values. Others are closed over, by a lambda or a partial.

  Returns:
    An `UpdateRule`; its rule parameters are a dict of scalars. A hyper-parameter in `positive` is stored as its
    logarithm, under `log_NAME`. `values(rule_params)` has all of them in their own units, by name.

  Raises:
    ValueError: without a hyper-parameter, or if one is not finite, is not an argument of the factory, or is in
      `positive` and not positive.

  Example:
    >>> import jax, jax.numpy as jnp, optax
    >>> rule = learned(optax.sgd, positive=("learning_rate",), learning_rate=0.5, momentum=0.25)
    >>> rule_params = rule.init(jax.random.key(0), jnp.zeros(3))
    >>> round(float(rule_params["log_learning_rate"]), 3)
    -0.693
    >>> rule.values(rule_params)
    {'learning_rate': Array(0.5, dtype=float32), 'momentum': Array(0.25, dtype=float32)}
  """
  _check(factory, positive, hyperparameters)
  # Under another name, so that a rule with and one without `positive` never take each other's parameters.
  stored = {name: f"log_{name}" if name in positive else name for name in hyperparameters}

  def init(key: jax.Array, params: Params) -> PyTree:
    del key
    dtype = real_dtype(jnp.result_type(*jax.tree.leaves(params)))
    start = {stored[name]: math.log(value) if name in positive else value for name, value in hyperparameters.items()}
    return {name: jnp.asarray(value, dtype) for name, value in start.items()}

  def values(rule_params: PyTree) -> PyTree:
    held = {name: rule_params[stored[name]] for name in hyperparameters}
    return {name: jnp.exp(value) if name in positive else value for name, value in held.items()}

  def transform(rule_params: PyTree) -> optax.GradientTransformation:
    made: Any = factory(**values(rule_params))
    made = made.transform(()) if isinstance(made, UpdateRule) else made
    update = optax.with_extra_args_support(made).update

    def in_its_dtypes(grads: Params, state: PyTree, params: Params | None = None, **extra: Any) -> Any:
      updates, after = update(grads, state, params, **extra)
      return updates, cast_like(after, state)  # a hyper-parameter has more precision than the parameters may have

    return optax.GradientTransformationExtraArgs(made.init, in_its_dtypes)

  return UpdateRule(init, transform, name="learned", values=values)


def _check(factory: Any, positive: Sequence[str], hyperparameters: dict[str, float]) -> None:
  if not callable(factory):
    raise ValueError(f"factory must be a function that makes an optax transformation or a rule; got {factory!r}")
  if not hyperparameters:
    raise ValueError("learned needs a hyper-parameter to learn, such as learning_rate=0.1; got none")
  if isinstance(positive, str):
    raise ValueError(f"positive must be a sequence of names, as in positive=({positive!r},); got a string")
  for name, value in hyperparameters.items():
    if isinstance(value, bool) or not is_number(value) or not math.isfinite(value):
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
