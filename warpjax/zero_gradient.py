"""Whether the derivative of an update rule is finite at a zero gradient, checked before anything compiles.

A square root at zero has an infinite slope, and infinity times a gradient of zero is NaN. One dead unit then makes the
meta-gradient NaN under Adam, though every value is finite.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warpjax import compilation, jaxprs
from warpjax.types import Params, PyTree, UpdateRule

Mode = Literal["reverse", "forward"]

# The zero part of the gradient, and the line to write if the derivative is not finite. The last has all parts.
_ADAPTIVE = (
  "write rules.adam(0.01), or rules.learned(rules.adam, learning_rate=0.01), or one of rules.adamw, amsgrad, nadam, "
  "rmsprop and adagrad; or give optax's own an eps_root, as in optax.adamw(0.01, eps_root=1e-8)"
)
_NORM = (
  "to clip, write rules.chain(rules.clip_by_global_norm(1.0), rules.sgd(0.1)); else take a rule without such norms"
)
_WHERE = {
  "nothing": ("anywhere", _ADAPTIVE),
  "an element": ("where an element of the gradient is zero, as for a dead unit", _ADAPTIVE),
  "a tensor": ("where the gradient of a tensor is zero, as for a parameter that is not used", _NORM),
  "all": ("where the whole gradient is zero", _NORM),
}


def check_at_zero(
  estimator: str, rule: UpdateRule, initial: Params, *, held: bool = False, mode: Mode = "reverse"
) -> None:
  """Raises a ValueError if the derivative of two steps of the rule is not finite at a zero gradient.

  Args:
    estimator: Its name, for the message.
    rule: A differentiable rule; one with `finite_at_zero` set is not tried.
    initial: Parameters; only structure, shapes and dtypes matter. The probe cuts each axis to two elements, unless the
      rule would then compute something else.
    held: Whether the inner gradient is constant, so that the rule is only differentiated in its parameters.
    mode: The mode of differentiation. Reverse mode multiplies by zero more often.

  Raises:
    ValueError: that names the zero part of the gradient and the line to write.
  """
  if rule.finite_at_zero or (is_finite := _probe(rule, initial, held, mode))("all"):
    return
  failing = (zeros for zeros in _WHERE if not is_finite(zeros))
  where, line = _WHERE[next(failing, "all")]
  raise ValueError(
    f"{estimator} cannot differentiate the rule {rule.name!r}: its derivative is not finite {where}; {line}"
    + ("" if held else "; an estimator that does not differentiate the rule, such as reptile(), takes it as it is")
  )


def is_finite_at_zero(
  rule: UpdateRule, initial: Params, zeros: str = "all", *, held: bool = False, mode: Mode = "reverse"
) -> bool:
  """Whether two steps of the rule have a finite derivative in parameters and rule parameters.

  Args:
    rule: The rule.
    initial: As for `check_at_zero`.
    zeros: What is zero of the gradient: "nothing", "an element" of each tensor, "a tensor" (the first), or "all".
    held: As for `check_at_zero`.
    mode: As for `check_at_zero`.

  Returns:
    A bool; True for a rule that cannot be run on these parameters, which leaves it untried.
  """
  return _probe(rule, initial, held, mode)(zeros)


def _probe(rule: UpdateRule, initial: Params, held: bool, mode: Mode) -> Callable[[str], bool]:
  """`(zeros) -> bool`: whether the derivative is finite if that part is zero. One program is compiled for all parts."""
  shapes = _shapes(rule, initial)

  def finite(seed: jax.Array, params: Params, mask: PyTree) -> jax.Array:
    at = (params, rule.init(jax.random.key(seed), params))
    final = lambda params, rule_params: _two_steps(rule, params, rule_params, mask, held)
    if mode == "forward":
      slopes = jax.jvp(final, at, jax.tree.map(jnp.ones_like, at))[1]
    else:
      slopes = jax.grad(final, argnums=(0, 1))(*at)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(slopes)]))

  options = compilation.fast_compilation()
  with jax.debug_nans(False), jax.debug_infs(False):
    try:
      lowered = jax.jit(finite, compiler_options=options).lower(np.uint32(0), shapes, shapes)
    except Exception:  # the rule's own error, which running it shows
      return lambda zeros: True
    # A compiled program runs at once, also inside of a trace.
    program = lowered.compile()
  ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)

  def is_finite(zeros: str) -> bool:
    with jax.debug_nans(False), jax.debug_infs(False):
      return bool(program(np.uint32(0), ones, _mask(ones, zeros)))

  return is_finite


def _shapes(rule: UpdateRule, initial: Params) -> PyTree:
  """Two elements in each axis if the rule computes the same with them as with the true shapes; else the true shapes."""
  shape_of = lambda most: jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct([min(size, most) for size in jnp.shape(leaf)], jnp.result_type(leaf)), initial
  )
  small, whole = shape_of(2), shape_of(sys.maxsize)

  def computed(shapes: PyTree) -> list[str] | None:
    steps = lambda params: _two_steps(rule, params, rule.init(jax.random.key(0), params), params, False)
    try:
      return [equation.primitive.name for equation in jaxprs.equations(jax.make_jaxpr(steps)(shapes))]
    except Exception:  # a rule may close over true shapes, and fail on others in any way
      return None

  of_small = computed(small)
  return small if of_small is not None and of_small == computed(whole) else whole


def _mask(ones: Params, zeros: str) -> PyTree:
  """Factors that turn parameters, all ones, into gradients."""
  masks, treedef = jax.tree.flatten(jax.tree.map(np.array, ones))
  for index, mask in enumerate(masks):
    if zeros == "an element":
      mask.flat[:1] = mask.size < 2
    elif zeros == "all" or (zeros == "a tensor" and index == 0):
      mask[...] = 0
  return jax.tree.unflatten(treedef, masks)


def _two_steps(rule: UpdateRule, params: Params, rule_params: PyTree, mask: PyTree, held: bool) -> jax.Array:
  """A number that depends on every parameter after two steps along `mask * params`."""
  transform = optax.with_extra_args_support(rule.transform(rule_params))
  state = transform.init(params)

  def value_fn(params: Params, key: Any = None) -> jax.Array:
    del key
    return _sum(jax.tree.map(lambda m, p: m * p * p / 2, mask, params))

  for index in range(2):
    value, grads = value_fn(params), jax.tree.map(lambda m, p: m * p, mask, params)
    if held:
      value, grads = jax.lax.stop_gradient((value, grads))
    extra = {"value": value, "grad": grads, "value_fn": value_fn, "key": jax.random.key(index)}
    updates, state = transform.update(grads, state, params, **extra)
    params = optax.apply_updates(params, updates)
  return _sum(params)


def _sum(tree: PyTree) -> jax.Array:
  return jnp.sum(jnp.stack([jnp.sum(jnp.real(leaf)).astype(float) for leaf in jax.tree.leaves(tree)]))
