"""The derivative of the gradient of an inner step: by mixed mode, by reverse mode, or none.

The meta-gradient needs `H c` and `M c`, the products of an adjoint `c` with the derivatives of the inner gradient
with respect to task parameters and shared parameters. Both Hessian blocks come from one scalar loss, so they equal
one directional derivative of the gradient: `jvp(grad(loss, (params, shared)), params, c)`. Forward mode keeps no
tape, hence the inner forward and backward passes store nothing for the outer sweep.

Reference: Kemaev et al., "Scalable Meta-Learning via Mixed-Mode Differentiation", 2025, arXiv 2505.00793.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax

from warpjax import jaxprs
from warpjax.types import Batch, LossFn, Params, PyTree

Derivative = Literal["mixed", "reverse", "first_order"]
Mode = Derivative | Literal["linearized", "value"]
"""As `value_and_grad` has it; "value" is that of `differentiable_value`."""

Memory = Literal["auto", "save_all", "save_gradients", "recompute", "nested", "treeverse", "offload"]
Gradient = tuple[jax.Array, Params]
"""The value of a loss, and its gradient."""

ValueAndGrad = Callable[..., Gradient]

INNER_GRADIENT = "warpjax_inner_gradient"


def value_and_grad(loss_fn: LossFn, derivative: Derivative | Literal["linearized"] = "reverse") -> ValueAndGrad:
  """The inner value and gradient, differentiated in the mode `derivative`.

  Args:
    loss_fn: `(params, shared, batch) -> (scalar, aux)`.
    derivative: "mixed" (forward over reverse), "linearized" (mixed, but activations are kept for the product, which
      otherwise computes them again), "reverse" (reverse over reverse) or "first_order" (held constant; the caller stops
      it once every term has been added).

  Returns:
    `(params, shared, batch, known=None) -> (value, grads)`. If they were computed before, `known` is both, and only
    their derivative is computed; reverse mode ignores it, since it needs the activations too.
  """

  def evaluate(params: Params, shared: PyTree, batch: Batch, known: Gradient | None = None) -> Gradient:
    if derivative == "first_order" and known is not None:
      return known
    if derivative not in ("mixed", "linearized"):
      return _reverse(loss_fn)(params, shared, batch)
    mixed = partial(_mixed, keep=derivative == "linearized")
    traced, shape = jax.make_jaxpr(loss_fn, return_shape=True)(params, shared, batch)
    if _has_custom_vjp(traced):
      # A hand-written backward pass may have no forward mode, nor a symmetric derivative; only reverse mode is safe.
      warnings.warn("the loss contains a custom_vjp; its gradient is differentiated in reverse mode", stacklevel=2)
      return _reverse(loss_fn)(params, shared, batch)
    if not any(isinstance(value, jax.core.Tracer) for value in traced.consts):
      return mixed(loss_fn)(params, shared, batch, known)
    # What may be differentiated rides in `shared`, the rest in `batch`.
    call, smooth, rest = lifted_from(traced, shape)
    whole = lambda params, shared, batch: call(shared[1], batch[1], params, shared[0], batch[0])
    return mixed(whole)(params, (shared, smooth), (batch, rest), known)

  return evaluate


def lifted(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[..., Any], list, list]:
  """A function that closes over nothing, which `custom_vjp` needs, since it cannot close over traced values.

  Args:
    function: It may close over traced values.
    *arguments: Its arguments, or arrays of the same shapes.

  Returns:
    `(smooth, rest, *arguments) -> function(*arguments)`, and the values that it closes over: `smooth`, those that may
    be differentiated, and `rest`.
  """
  return lifted_from(*jax.make_jaxpr(function, return_shape=True)(*arguments))


def lifted_from(traced: Any, shape: Any) -> tuple[Callable[..., Any], list, list]:
  """As `lifted`, from what `jax.make_jaxpr(function, return_shape=True)` gave."""

  def call(smooth: list, rest: list, *arguments: Any) -> Any:
    consts = [b if a is None else a for a, b in zip(smooth, rest, strict=True)]
    with jax.debug_nans(False):  # as in `jaxpr_as_fun`: what hides its own NaN, like `jnp.var`, hides none in a jaxpr
      outputs = jax.core.eval_jaxpr(traced, consts, *jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shape), outputs)

  smooth = [value if is_inexact(value) else None for value in traced.consts]
  return call, smooth, [None if is_inexact(value) else value for value in traced.consts]


def _reverse(loss_fn: LossFn) -> ValueAndGrad:
  def evaluate(params: Params, shared: PyTree, batch: Batch) -> Gradient:
    (value, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, shared, batch)
    return value, grads

  return evaluate


def differentiable_value(loss_fn: LossFn) -> Callable[..., tuple[jax.Array, tuple[Params, PyTree]]]:
  """The value of a loss, differentiable in the parameters by its gradient, which is held constant.

  Args:
    loss_fn: `(params, shared, batch) -> (scalar, aux)`.

  Returns:
    `(params, shared, batch) -> (value, (grads, shared_grads))`. The value is constant in `shared`. A caller that sums
    many values sums `shared_grads` too and attaches the sum with `with_gradient`, so that no step stores a gradient.
  """

  def evaluate(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, tuple[Params, PyTree]]:
    fixed = jax.lax.stop_gradient((params, shared))
    (value, _), grads = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)(*fixed, batch)
    return with_gradient(value, grads[0], params), grads

  return evaluate


@jax.custom_jvp
def with_gradient(value: jax.Array, gradient: PyTree, point: PyTree) -> jax.Array:
  """The value, with `gradient` as its derivative in `point`; since that is known, no activations are kept for it."""
  del gradient, point
  return value


@with_gradient.defjvp
def _(primals: Any, tangents: Any) -> Any:
  (value, gradient, _), (moved, _, along) = primals, tangents
  products = jax.tree.map(lambda g, v: jax.numpy.sum((g * v).real, dtype=value.dtype), gradient, along)
  return value, jax.tree.reduce(jax.numpy.add, products, moved)


def _mixed(loss_fn: LossFn, keep: bool) -> ValueAndGrad:
  def both(params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, tuple[Params, PyTree]]:
    (value, _), grads = jax.value_and_grad(loss_fn, argnums=(0, 1), has_aux=True)(params, shared, batch)
    return value, grads

  def evaluate(params: Params, shared: PyTree, batch: Batch, known: Gradient | None) -> Gradient:
    return _reverse(loss_fn)(params, shared, batch) if known is None else known

  def forward(*arguments: Any) -> Any:
    params, shared, batch, known = jax.tree.map(lambda leaf: leaf.value, arguments, is_leaf=is_primal)
    if not keep:
      return evaluate(params, shared, batch, known), (params, shared, batch)
    (value, first), push = jax.linearize(lambda point: both(point, shared, batch), params)
    return (value, first[0]) if known is None else known, (first, push)

  def backward(residuals: Any, cotangents: Any) -> Any:
    value_bar, grads_bar = cotangents
    grads_bar = jax.tree.map(materialised, grads_bar, is_leaf=is_zero)
    if keep:
      first, push = residuals
      _, products = push(grads_bar)
    else:
      params, shared, batch = residuals
      moved = lambda point: both(point, shared, batch)
      (_, first), (_, products) = jax.jvp(moved, (params,), (grads_bar,))
    if not is_zero(value_bar):  # it is for every rule that does not read the value
      products = jax.tree.map(lambda g, h: (value_bar * g).astype(g.dtype) + h, first, products)
    return *products, None, None

  differentiated = jax.custom_vjp(evaluate)
  differentiated.defvjp(forward, backward, symbolic_zeros=True)
  return differentiated


def is_primal(leaf: Any) -> bool:
  """Whether a leaf is an argument of a forward rule with symbolic zeros."""
  return isinstance(leaf, jax.custom_derivatives.CustomVJPPrimal)


def is_zero(leaf: Any) -> bool:
  """Whether a cotangent is a symbolic zero."""
  return isinstance(leaf, jax.custom_derivatives.SymbolicZero)


def materialised(cotangent: Any) -> jax.Array:
  """The cotangent as an array."""
  return jax.numpy.zeros(cotangent.shape, cotangent.dtype) if is_zero(cotangent) else cotangent


def _has_custom_vjp(jaxpr: Any) -> bool:
  return any("bwd" in jaxprs.parameters(equation) for equation in jaxprs.equations(jaxpr))


def constant(tree: PyTree, name: str) -> PyTree:
  """`tree`, which raises an error when it is differentiated; a silent zero gradient would be worse.

  Raises:
    ValueError: when traced with a tangent on any leaf.
  """

  @jax.custom_jvp
  def identity(leaf: jax.Array) -> jax.Array:
    return leaf

  def refuse(primals: Any, tangents: Any) -> Any:
    if not is_zero(tangents[0]):
      raise ValueError(
        f"{name} is differentiated, but a meta-gradient holds it constant and its derivative would be a silent zero; "
        "put what is meta-learned in MetaParams.shared"
      )
    return primals[0], tangents[0]

  identity.defjvp(refuse, symbolic_zeros=True)
  return jax.tree.map(lambda leaf: identity(leaf) if is_inexact(leaf) else leaf, tree)


def is_inexact(leaf: Any) -> bool:
  """Whether a leaf is an array of real or complex numbers."""
  return hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact)
