"""Reptile: move the initial parameters towards the adapted ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from warpjax.meta_gradients.trajectory import Contribution, zeros
from warpjax.numerics import cast_like, sums_like
from warpjax.problem import Problem
from warpjax.types import AdaptState, Aux, InnerLoop, InnerStep, MetaParams, Params


def reptile(step_weights: Sequence[float] | None = None) -> Contribution:
  """`initial - final`, divided by nothing: an outer SGD of rate epsilon is Reptile's interpolation.

  With weights it is `sum_k w_k (theta_{k-1} - theta_k)`, the combinations of inner gradients that its paper compares:
  under SGD the k-th difference is the learning rate times the k-th gradient. `(0, ..., 0, 1)` only keeps the last
  gradient, which is first-order MAML with the last minibatch as its query set. For complex parameters it is the
  conjugate, as JAX's gradients are.

  Args:
    step_weights: One number for each inner step; None for ones.

  Returns:
    A contribution to the `initial` block.

  Raises:
    ValueError: when a weight is not finite; when the inner loop has another number of steps.

  Example:
    >>> isinstance(reptile(), Contribution)
    True

  Reference:
    Nichol, Achiam, Schulman 2018, arXiv 1803.02999, algorithms 1 and 2; the combinations: section 6.2.
  """
  if step_weights is None:
    return Contribution(init=lambda problem: (), step=lambda problem, carry, step: carry, finish=_whole)
  weights = tuple(step_weights)
  if not weights or not all(isinstance(w, (int, float)) and math.isfinite(w) for w in weights):
    raise ValueError(f"step_weights must be finite numbers, one for each inner step; got {step_weights!r}")

  def check(inner: InnerLoop) -> None:
    if len(weights) != inner.num_steps:
      raise ValueError(f"step_weights must be one for each of the {inner.num_steps} inner steps; got {len(weights)}")

  def add(problem: Problem, carry: Params, step: InnerStep) -> Params:
    del problem
    weight = jnp.asarray(weights)[step.number]
    difference = optax.tree.conj(optax.tree.sub(step.state.params, step.next.params))
    return jax.tree.map(lambda total, d: total + weight.astype(total.dtype) * d.astype(total.dtype), carry, difference)

  return Contribution(
    init=lambda problem: sums_like(problem.meta_params.initial),
    step=add,
    finish=lambda problem, carry, final: (zeros(problem, initial=cast_like(carry, problem.meta_params.initial)), {}),
    check=check,
  )


def _whole(problem: Problem, carry: tuple, final: AdaptState) -> tuple[MetaParams, Aux]:
  del carry
  return zeros(problem, initial=optax.tree.conj(optax.tree.sub(problem.meta_params.initial, final.params))), {}
