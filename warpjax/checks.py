"""Checks of arguments that more than one layer has."""

from __future__ import annotations

import numbers
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.mistakes import check_meta_params
from warpjax.numerics import is_typed_key
from warpjax.types import MetaParams, Params, UpdateRule

# Under vmap these draw all numbers from the first key, and so other numbers in a batch of another size.
_BATCHED_TOGETHER = ("rbg", "unsafe_rbg")


def check_count(name: str, value: Any, *, least: int = 1, optional: bool = False) -> None:
  """Raises a ValueError unless `value` is an integer of at least `least`, or None if it is optional."""
  if optional and value is None:
    return
  if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
    none = "None or " if optional else ""
    raise ValueError(f"{name} must be {none}an integer of at least {least}; got {value!r}")


def check_counts(*, least: int = 1, **sizes: Any) -> None:
  """Raises a ValueError that names the first size, or element of one, that is not an integer of at least `least`."""
  for name, size in sizes.items():
    elements = {f"{name}[{i}]": each for i, each in enumerate(size)} if isinstance(size, tuple | list) else {name: size}
    for label, element in elements.items():
      check_count(label, element, least=least)


def check_widths(**widths: Any) -> None:
  """Raises a ValueError unless each is a sequence of integers of at least 1."""
  for name, width in widths.items():
    if not isinstance(width, tuple | list):
      raise ValueError(f"{name} must be a sequence of integers, such as (40, 40); got {width!r}")
  check_counts(**widths)


def check_choice(name: str, value: Any, allowed: Any) -> None:
  """Raises a ValueError that names the argument unless `value` is among `allowed`, a `Literal` or a collection.

  Example:
    >>> check_choice("memory", "none", ("auto", "recompute"))
    Traceback (most recent call last):
    ValueError: memory must be one of 'auto', 'recompute'; got 'none'
  """
  choices = get_args(allowed) or tuple(allowed)
  if value not in choices:
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_learning_rate(learning_rate: Any) -> None:
  """Raises a ValueError unless `learning_rate` is positive and finite, an array, or a schedule."""
  if callable(learning_rate) or isinstance(learning_rate, (jax.Array, np.ndarray)):
    return
  if isinstance(learning_rate, bool) or not is_number(learning_rate) or not 0 < learning_rate < float("inf"):
    raise ValueError(f"learning_rate must be a positive number or an optax schedule; got {learning_rate!r}")


def check_real(name: str, params: Params) -> None:
  """Raises a ValueError that names the rule for complex parameters; such a rule takes only real ones."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if jnp.iscomplexobj(leaf):
      raise ValueError(f"{name} takes real parameters; got {leaf.dtype} at params{jax.tree_util.keystr(path)}")


def check_key(key: Any, name: str = "key") -> None:
  """Raises a ValueError if `key` is not a key, or if its numbers depend on the keys that it is vmapped with.

  Threefry keys are allowed, as `jax.random.key` and as `jax.random.PRNGKey` make them, whatever
  `jax_threefry_partitionable` is.

  Args:
    key: One key, or an array of keys.
    name: Name of the argument.
  """
  dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
  typed = is_typed_key(key)
  if not typed and (dtype != jnp.uint32 or shape[-1:] not in ((2,), (4,))):
    got = type(key).__name__ if dtype is None else f"an array {dtype}{list(shape)}"
    raise ValueError(f"{name} must be a key, such as jax.random.key(0); got {got}")
  # A raw key of four words is one of rbg; that of threefry has two.
  impl = str(jax.random.key_impl(key)) if typed else "rbg" if shape[-1:] == (4,) else "threefry2x32"
  if impl in _BATCHED_TOGETHER:
    raise ValueError(
      f"{name} must be a threefry key, jax.random.key(seed, impl='threefry2x32'), so that a task does not depend on "
      f"the tasks computed with it; got a key of {impl!r}, the default where jax_default_prng_impl says so"
    )


def is_number(value: Any) -> bool:
  """Whether `value` is a number, of Python or NumPy, whose range can be checked; an array may be traced."""
  return isinstance(value, numbers.Real)


def check_differentiable(estimator: str, rule: UpdateRule, instead: str = "another rule") -> None:
  """Raises a ValueError that names the rule where its steps have no derivative."""
  if not rule.differentiable:
    raise ValueError(
      f"{estimator} cannot differentiate the rule {rule.name!r} (a line search or the like); use {instead}"
    )


def check_learnable(meta_params: MetaParams, blocks: tuple[str, ...] = MetaParams._fields) -> None:
  """Raises a ValueError, which names the path, for a leaf that has no derivative: an integer, a boolean, a random key.

  An outer optimizer would decay an integer table to zero, and a gradient with respect to one is an error of JAX.

  Args:
    meta_params: The meta-parameters, traced or not.
    blocks: The blocks that are checked; an evaluation learns no rule parameters.

  Raises:
    ValueError: that names the leaf, its dtype, and where to put values that are not learned.
  """
  check_meta_params(meta_params)
  for block in blocks:
    for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(meta_params, block)):
      dtype = getattr(leaf, "dtype", type(leaf))
      if not isinstance(leaf, (float, complex)) and not (hasattr(leaf, "dtype") and jnp.issubdtype(dtype, jnp.inexact)):
        raise ValueError(
          f"MetaParams.{block}{jax.tree_util.keystr(path)} must be real or complex numbers, as it is learned; got "
          f"{getattr(dtype, '__name__', dtype)} of shape {getattr(leaf, 'shape', ())}; put what is not learned in the "
          "task's data, or close over it in the loss"
        )
