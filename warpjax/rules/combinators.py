"""Composition of rules, as optax composes transformations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from warpjax.types import Params, PyTree, UpdateRule

Mask = PyTree | Callable[[Params], PyTree]


def chain(*rules: UpdateRule) -> UpdateRule:
  """Applies rules in sequence, each to the updates of the one before. The rule parameters are a tuple.

  Args:
    *rules: At least one.

  Returns:
    An `UpdateRule`, differentiable when all of them are.

  Raises:
    ValueError: without a rule, or if an argument is not one.

  Example:
    >>> import optax
    >>> from warpjax.rules import from_optax, sgd
    >>> chain(from_optax(optax.clip(1.0)), sgd(0.1)).name
    'chain(from_optax, sgd)'
  """
  for rule in rules or (None,):
    if not isinstance(rule, UpdateRule):
      raise ValueError(f"chain takes one UpdateRule or more; got {rule!r}")

  def init(key: jax.Array, params: Params) -> PyTree:
    return tuple(rule.init(jax.random.fold_in(key, i), params) for i, rule in enumerate(rules))

  def each(rule_params: PyTree) -> Any:
    """The rules with their own parameters; `()` stands for the parameters of rules that have none."""
    return zip(rules, rule_params or ((),) * len(rules), strict=True)

  def transform(rule_params: PyTree) -> optax.GradientTransformation:
    return optax.chain(*(rule.transform(p) for rule, p in each(rule_params)))

  return UpdateRule(
    init,
    transform,
    all(rule.differentiable for rule in rules),
    f"chain({', '.join(rule.name for rule in rules)})",
    True if all(rule.finite_at_zero for rule in rules) else None,
    lambda rule_params: tuple(rule.values(p) for rule, p in each(rule_params)),
  )


def masked(rule: UpdateRule, mask: Mask) -> UpdateRule:
  """Applies the rule where `mask` is True. Elsewhere updates pass unchanged, as with `optax.masked`.

  Args:
    rule: The rule to apply.
    mask: A tree of booleans that prefixes the parameters, or a function from parameters to one.

  Returns:
    An `UpdateRule` whose rule parameters only cover the masked-in parameters.

  Raises:
    ValueError: when `rule` is not one.

  Example:
    >>> from warpjax.rules import sgd
    >>> masked(sgd(0.1), {"head": True, "body": False}).name
    'masked(sgd)'
  """

  if not isinstance(rule, UpdateRule):
    raise ValueError(f"masked takes an UpdateRule and a mask; got {rule!r}")

  def init(key: jax.Array, params: Params) -> PyTree:
    return rule.init(key, _hide(params, mask))

  def transform(rule_params: PyTree) -> optax.GradientTransformationExtraArgs:
    transformation = optax.masked(rule.transform(rule_params), mask)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any) -> Any:
      return transformation.update(updates, state, params, **_restrict(extra, params, mask))

    return optax.GradientTransformationExtraArgs(transformation.init, update)

  return rule._replace(init=init, transform=transform, name=f"masked({rule.name})")


def freeze(mask: Mask) -> UpdateRule:
  """Sets updates to zero where `mask` is True, so that these parameters keep their meta-learned values.

  Args:
    mask: A tree of booleans that prefixes the parameters, or a function from parameters to one.

  Returns:
    An `UpdateRule` to put last in a `chain`.

  Example:
    >>> from warpjax.rules import sgd
    >>> chain(sgd(0.1), freeze({"head": False, "body": True})).name
    'chain(sgd, freeze)'
  """
  transformation = optax.masked(optax.set_to_zero(), mask)
  return UpdateRule(lambda key, params: (), lambda rule_params: transformation, name="freeze", finite_at_zero=True)


def _restrict(extra: dict[str, Any], params: Params | None, mask: Mask) -> dict[str, Any]:
  """The extra arguments that are trees, or functions of one, restricted to the masked-in parameters."""
  restricted = dict(extra)
  if "grad" in extra:
    restricted["grad"] = _hide(extra["grad"], mask)
  if "value_fn" in extra:
    tree = mask(params) if callable(mask) else mask

    # optax's line searches ask for `key` by name.
    def value_fn(part: Params, key: jax.Array | None = None) -> jax.Array:
      whole = jax.tree.map(lambda keep, mine, other: mine if keep else other, tree, part, params)
      return extra["value_fn"](whole, key=key)

    restricted["value_fn"] = value_fn
  return restricted


def _hide(params: Params, mask: Mask) -> Any:
  tree = mask(params) if callable(mask) else mask
  return jax.tree.map(lambda keep, part: part if keep else optax.MaskedNode(), tree, params)
