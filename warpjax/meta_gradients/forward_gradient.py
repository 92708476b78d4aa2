"""Forward gradients: directional derivatives through the whole adaptation, with no sweep back."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_choice, check_count, check_differentiable, check_learnable
from warpjax.differentiation import constant
from warpjax.meta_gradients.directions import Distribution, directions
from warpjax.numerics import add_to, cast_like, sums_like
from warpjax.problem import Problem
from warpjax.types import Aux, InnerLoop, MetaGradFn, MetaParams, Task
from warpjax.zero_gradient import check_at_zero

_STREAM = 0xF06D


def forward_gradient(inner: InnerLoop, num_directions: int = 1, *, distribution: Distribution = "normal") -> MetaGradFn:
  """The mean of `(dF v) v` over random directions v, F the query loss after adaptation: unbiased for dF.

  `dF v` is one pass in forward mode, so memory does not grow with the inner steps; the variance grows with the number
  of meta-parameters.

  Args:
    inner: The inner loop; its rule must be differentiable.
    num_directions: Directions, drawn from the task's key and computed in sequence; all of them are stored.
    distribution: The distribution of v: "normal", "rademacher" (the least variance of independent elements) or
      "orthogonal" (exact with as many directions as meta-parameters).

  Returns:
    A `MetaGradFn`.

  Raises:
    ValueError: when an argument is not allowed, or the rule has no derivative.

  Example:
    >>> import jax, jax.numpy as jnp, warpjax as wj
    >>> loss = lambda w, shared, batch: (0.5 * (w - batch) ** 2, {})
    >>> grad_fn = forward_gradient(wj.InnerLoop(loss, wj.rules.sgd(0.5), num_steps=2), distribution="rademacher")
    >>> _, grads = grad_fn(wj.MetaParams(jnp.array(0.0)), wj.Task(4.0, 4.0), jax.random.key(0))
    >>> float(grads.initial)
    -0.25

  Reference:
    Baydin et al. 2022, arXiv 2202.08587, definition 1; through an inner loop: Shen et al. 2024, arXiv 2406.14095.
  """
  num_steps = check_inner(inner)
  check_count("num_directions", num_directions)
  check_choice("distribution", distribution, Distribution)
  check_differentiable("forward_gradient", inner.rule)

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    check_learnable(meta_params)
    check_at_zero("forward_gradient", inner.rule, meta_params.initial, mode="forward")

    def objective(point: MetaParams) -> tuple[jax.Array, Aux]:
      problem = Problem(inner, point, constant(task, "the task"), key)
      final = run_steps(problem.step, problem.start(), last=num_steps)[0]
      return problem.query_loss(final.params, point.shared, num_steps)

    def along(total: MetaParams, vector: MetaParams) -> tuple[MetaParams, tuple[jax.Array, Aux]]:
      loss, slope, aux = jax.jvp(objective, (meta_params,), (vector,), has_aux=True)
      share = jax.tree.map(lambda v: (slope / num_directions * jnp.conj(v)).astype(v.dtype), vector)
      return add_to(total, share), (loss, aux)

    vectors = directions(jax.random.fold_in(key, _STREAM), meta_params, num_directions, distribution)
    total, values = jax.lax.scan(along, sums_like(meta_params), vectors)
    return jax.tree.map(lambda leaf: leaf[0], values), cast_like(total, meta_params)

  return grad_fn
