"""Leap: shorten the path that gradient descent takes over the loss surface."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.meta_gradients.trajectory import Contribution, zeros
from warpjax.numerics import cast_like, sums_like
from warpjax.problem import Problem
from warpjax.types import AdaptState, Aux, InnerStep, MetaParams, Params


class _Path(NamedTuple):
  params: Params
  value: jax.Array
  grads: Params
  pull: Params


def leap(
  *, norm: bool = True, loss: bool = True, stabilizer: bool = True, all_segments: bool = True, eps: float = 1e-12
) -> Contribution:
  """The pull-forward gradient of the path length, `sum_k -(dL_k grad L(theta_{k-1}) + theta_k - theta_{k-1}) / n_k`.

  `dL_k = L(theta_k) - L(theta_{k-1})`, `n_k = sqrt(|theta_k - theta_{k-1}|^2 + dL_k^2)`; summed over segments.

  Args:
    norm: True for path length (d1), False for energy (d2, `n_k = 1`).
    loss: Whether the loss is a coordinate of the path; if False, the parameters are the only coordinates.
    stabilizer: Whether a rising segment counts as a falling one (`dL_k -> -|dL_k|`).
    all_segments: All K segments; False leaves out the last, as the reference code does.
    eps: Added to `n_k^2`. A step of length zero contributes zero for every `eps`.

  Returns:
    A contribution to the `initial` block.

  Example:
    >>> isinstance(leap(), Contribution)
    True

  Reference:
    Flennerhag, Moreno, Lawrence, Damianou 2019, arXiv 1812.01054, equation 8.
  """

  def advance(path: _Path, params: Params, value: jax.Array, weight: Any) -> Params:
    moved = optax.tree.conj(optax.tree.sub(params, path.params))
    change = value - path.value if loss else jnp.zeros_like(value)
    change = -jnp.abs(change) if stabilizer else change
    squared = optax.tree.norm(moved, squared=True) + change**2 + eps if norm else jnp.ones_like(change)
    # A step without length, such as the one before the first, has no direction, and zero divided by zero is NaN.
    weight, length = jnp.where(squared > 0, weight, 0), jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return jax.tree.map(
      lambda pull, grad, move: pull - (weight * (change * grad + move) / length).astype(pull.dtype),
      path.pull,
      path.grads,
      moved,
    )

  def init(problem: Problem) -> _Path:
    initial = problem.meta_params.initial
    value = jax.eval_shape(lambda: problem.step(problem.start(), 0).value)
    return _Path(initial, jnp.zeros((), value.dtype), optax.tree.zeros_like(initial), sums_like(initial))

  def step(problem: Problem, path: _Path, seen: InnerStep) -> _Path:
    # The segment that ends here is complete once the loss at its end is known; before step 0 there is none.
    pull = advance(path, seen.state.params, seen.value, seen.number > 0)
    return _Path(seen.state.params, seen.value, seen.grads, pull)

  def finish(problem: Problem, path: _Path, final: AdaptState) -> tuple[MetaParams, Aux]:
    pull = path.pull
    if all_segments:
      batch = problem.batch(final.params, problem.inner.num_steps)
      value = problem.inner_objective(final.params, problem.meta_params.shared, batch)
      pull = advance(path, final.params, value, 1.0)
    return zeros(problem, initial=cast_like(pull, problem.meta_params.initial)), {}

  return Contribution(init, step, finish)
