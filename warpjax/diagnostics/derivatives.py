"""Checks on a learner's meta-gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from warpjax import compilation
from warpjax.adaptation import adapt
from warpjax.diagnostics.report import Check, zero_leaves
from warpjax.meta_gradients.unrolled import unrolled
from warpjax.numerics import named_leaves, real_vdot
from warpjax.problem import Problem
from warpjax.types import InnerLoop, MetaGradFn, MetaParams, PyTree, Task
from warpjax.zero_gradient import is_finite_at_zero

_DIRECTIONS = 3
# A share of the largest entry of the meta-gradient; a leaf below it holds the round-off of a zero gradient.
_ROUND_OFF = 1e-13


def check(
  inner: InnerLoop, meta_params: MetaParams, tasks: Task, key: jax.Array, meta_grad: MetaGradFn | None
) -> tuple[Check, ...]:
  """Finite differences, order and zero leaves; `tasks` has leaves `[num_tasks, ...]`, None is the exact gradient."""

  def mean(estimate: MetaGradFn) -> MetaParams:
    def gradient(meta_params: MetaParams, tasks: Task) -> MetaParams:
      return _mean(jax.lax.map(lambda task: estimate(meta_params, task, key)[1], tasks))

    return _jit(gradient)(meta_params, tasks)

  if not inner.rule.differentiable:
    reason = f"the rule {inner.rule.name!r} cannot be unrolled, so there is no exact gradient to compare with"
    skipped = [Check(name, "skipped", reason) for name in ("finite differences", "order")]
    return (*skipped, _zero_leaves(mean(meta_grad)) if meta_grad else Check("zero leaves", "skipped", reason))
  tried = inner._replace(rule=inner.rule._replace(finite_at_zero=True))  # `rule_at_zero` has the verdict on that
  exact, first = mean(unrolled(tried)), mean(unrolled(tried, "first_order"))
  given = mean(meta_grad) if meta_grad else exact
  differences = _finite_differences(inner, meta_params, tasks, key, exact)
  return differences, _order(given, exact, first), _zero_leaves(given)


def _finite_differences(
  inner: InnerLoop, meta_params: MetaParams, tasks: Task, key: jax.Array, gradient: MetaParams
) -> Check:
  def one(meta_params: MetaParams, task: Task) -> jax.Array:
    final = adapt(inner, meta_params, task, key).final.params
    return Problem(inner, meta_params, task, key).query_loss(final, meta_params.shared, inner.num_steps)[0]

  @_jit
  def loss(start: MetaParams, step: float, along: MetaParams) -> jax.Array:
    point = optax.tree.add_scale(start, step, along)
    return jnp.mean(jax.lax.map(lambda task: one(point, task), tasks))

  double = jax.eval_shape(loss, meta_params, 0.0, meta_params).dtype == jnp.float64
  steps, tolerance = ((1e-5, 1e-6, 1e-7), 1e-4) if double else ((1e-2,), 5e-2)
  # A random direction sees this share of the gradient; an error is measured against no less.
  floor = float(optax.tree.norm(gradient)) / np.sqrt(max(1, optax.tree.size(gradient)))

  def error(along: MetaParams, step: float, derivative: float) -> float:
    near, far = (float(loss(meta_params, h, along)) - float(loss(meta_params, -h, along)) for h in (step, 2 * step))
    slope = (8 * near - far) / (12 * step)
    return abs(slope - derivative) / max(abs(slope), floor, 1e-300)

  def least(along: MetaParams) -> float:
    """A step across a kink of a ReLU tells nothing of the derivative; a smaller one may stay on its side."""
    derivative, errors = float(slope_along(gradient, along)), []
    for step in steps:
      errors.append(error(along, step, derivative))
      if errors[-1] <= tolerance:
        break
    return float(np.min(errors))

  slope_along = _jit(lambda gradient, along: real_vdot(optax.tree.conj(gradient), along))
  draw = _jit(lambda key: [_direction(meta_params, jax.random.fold_in(key, index)) for index in range(_DIRECTIONS)])
  worst = float(np.max([least(along) for along in draw(key)]))  # a NaN stays one
  words = f"the meta-gradient is within {worst:.1e} (relative) of differences of the query loss"
  if not worst <= tolerance:
    words = (
      f"the meta-gradient is {worst:.1e} (relative) off differences of the query loss: look for a stop_gradient, a "
      "derivative rule written by hand, randomness that does not come from the key, a kink of the loss (ReLU, "
      "max-pooling) at these very parameters, or a NaN"
    )
  return Check("finite differences", "passed" if worst <= tolerance else "failed", words)


def _order(given: MetaParams, exact: MetaParams, first: MetaParams) -> Check:
  gap = _relative(first, exact)
  what = f"second-order terms are {gap:.1e} of the meta-gradient"
  if gap < 1e-9:
    return Check("order", "warning", f"{what}: the inner gradient is held constant, or the loss has no curvature")
  if _relative(given, exact) < 1e-6:
    return Check("order", "passed", f"second order: equal to the exact meta-gradient; {what}")
  if _relative(given, first) < 1e-6:
    return Check("order", "note", f"first order; {what}, and cosine with the exact one {_cosine(given, exact):.3f}")
  blocks = [
    f"{name} has cosine {_cosine(block, true):.3f}, norm ratio {float(optax.tree.norm(block)) / norm:.3g}"
    for (name, block), true in zip(given._asdict().items(), exact, strict=True)
    if jax.tree.leaves(block) and (norm := float(optax.tree.norm(true))) > 0
  ]
  return Check("order", "note", f"an estimate; against the exact meta-gradient {'; '.join(blocks)}")


def _zero_leaves(gradient: MetaParams) -> Check:
  zeros, sizes = zero_leaves(gradient), [float(jnp.max(jnp.abs(leaf))) for _, leaf in named_leaves(gradient)]
  small = [
    path for (path, _), size in zip(named_leaves(gradient), sizes, strict=True) if 0 < size < _ROUND_OFF * max(sizes)
  ]
  said = [f"exactly zero: {', '.join(zeros)}"] if zeros else []
  if small:
    said.append(f"zero but for round-off, which Adam would turn into full steps: {', '.join(small)}")
  if said:
    return Check("zero leaves", "warning", "the meta-gradient is " + "; ".join(said))
  return Check("zero leaves", "passed", f"all {len(sizes)} leaves of the meta-parameters get a gradient")


def rule_at_zero(inner: InnerLoop, meta_params: MetaParams) -> Check:
  """The derivative through two steps of the rule at an inner gradient of exactly zero."""
  if not inner.rule.differentiable:
    return Check("rule at zero", "skipped", f"the rule {inner.rule.name!r} is not differentiated")
  if is_finite_at_zero(inner.rule, meta_params.initial):
    return Check("rule at zero", "passed", "the derivative of the rule is finite at an inner gradient of zero")
  words = "where the inner gradient is zero the derivative of the rule is not finite"
  return Check("rule at zero", "failed", f"{words}: a root at zero? Adam needs eps_root > 0, as rules.adam has")


def _jit(function: Callable[..., Any]) -> Any:
  """`jax.jit` for programs that run a few times and would compile for minutes otherwise."""
  return jax.jit(function, compiler_options=compilation.fast_compilation())


def _mean(tree: PyTree) -> PyTree:
  return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), tree)


def _direction(tree: PyTree, key: jax.Array) -> PyTree:
  leaves, treedef = jax.tree.flatten(tree)
  drawn = [jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]
  return optax.tree.scale(1 / optax.tree.norm(drawn), jax.tree.unflatten(treedef, drawn))


def _relative(tree: PyTree, reference: PyTree) -> float:
  return float(optax.tree.norm(optax.tree.sub(tree, reference)) / jnp.maximum(optax.tree.norm(reference), 1e-300))


def _cosine(a: PyTree, b: PyTree) -> float:
  return float(real_vdot(a, b) / jnp.maximum(optax.tree.norm(a) * optax.tree.norm(b), 1e-300))
