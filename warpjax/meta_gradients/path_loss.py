"""The loss of a whole adaptation: query losses along it, weighted and summed inside its scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_count
from warpjax.differentiation import with_gradient
from warpjax.problem import Problem
from warpjax.types import Aux, InnerLoop, InnerStep, PyTree


class PathLoss(NamedTuple):
  """`total`, the weighted sum so far; `loss` and `aux`, the query loss at the last point.

  `slope` is the weighted sum of the steps' `shared_grads`. The derivative of `total` in `shared` lacks these terms.
  """

  total: jax.Array
  loss: jax.Array
  aux: Aux
  slope: PyTree = ()


class WeightedPath(NamedTuple):
  """A fold over inner steps: its initial carry, `(carry, inner_step) -> carry`, and `carry -> total` in the end."""

  start: PathLoss
  step: Callable[[PathLoss, InnerStep], PathLoss]
  total: Callable[[PathLoss], jax.Array] = lambda path: path.total


def check_no_query(inner: InnerLoop, online: bool) -> None:
  """Raises a ValueError for a query loss that the online objective would not use."""
  if online and inner.query_loss_fn is not None:
    raise ValueError("InnerLoop.query_loss_fn must be None with online, whose meta-loss has only the inner losses")


def weighted_path(problem: Problem, weights: jax.Array) -> WeightedPath:
  """The fold of `sum_k w_k L_query(theta_k)`, k from 1, the points after each step.

  Args:
    problem: The task.
    weights: `w_1..w_K`, `[num_steps]`.

  Returns:
    A fold for `run_steps`.
  """
  shared = problem.meta_params.shared

  def step(path: PathLoss, seen: InnerStep) -> PathLoss:
    loss, aux = problem.query_loss(seen.next.params, shared, seen.number + 1)
    return PathLoss(path.total + weights[seen.number].astype(loss.dtype) * loss, loss, aux)

  def shapes() -> tuple[jax.Array, Aux]:
    return problem.query_loss(problem.start().params, shared, 0)

  loss, aux = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(shapes))
  return WeightedPath(PathLoss(loss, loss, aux), step)


def online_path(problem: Problem, weights: jax.Array, held: bool = False) -> WeightedPath:
  """The fold of `sum_k w_k L(theta_k; batch_k)`, k from 0: the inner losses before each step, the prox term included.

  They are the inner loop's own values, so that they cost no further forward pass. If the gradients of a
  step are held constant, its gradient in `shared` is added to a sum that the scan carries, and is not stored.

  Args:
    problem: The task.
    weights: `w_0..w_{K-1}`, `[num_steps]`.
    held: Whether some steps are taken in the mode "value".

  Returns:
    A fold for `run_steps`; its `loss` is the sum, and its `aux` has the loss before the last step.
  """

  shared = problem.meta_params.shared

  def step(path: PathLoss, seen: InnerStep) -> PathLoss:
    add = lambda sum, each: sum + weights[seen.number].astype(each.dtype) * each
    total = add(path.total, seen.value)
    slope = path.slope if seen.shared_grads is None else jax.tree.map(add, path.slope, seen.shared_grads)
    return PathLoss(total, total, {"online/last": seen.value}, slope)

  def value() -> jax.Array:
    start = problem.start().params
    return problem.inner_objective(start, problem.meta_params.shared, problem.batch(start, 0))

  zero = jnp.zeros((), jax.eval_shape(value).dtype)
  start = PathLoss(zero, zero, {"online/last": zero}, optax.tree.zeros_like(shared) if held else ())
  return WeightedPath(start, step, lambda path: with_gradient(path.total, path.slope, shared if held else ()))


def annealed_step_weights(
  num_steps: int, num_epochs: int, steps_per_epoch: int = 1
) -> Callable[[jax.Array], jax.Array]:
  """MAML++'s weights of the losses after each step: equal at first, then annealed to the last loss.

  In epoch e of `num_epochs` every step but the last has `max((1 - e / num_epochs) / K, 0.03 / K)`, the last the rest.

  Args:
    num_steps: K, inner steps.
    num_epochs: Epochs until only the last loss counts.
    steps_per_epoch: Meta-steps in an epoch.

  Returns:
    `(meta-steps done) -> weights [num_steps]`, for `unrolled(step_weights=...)`.

  Raises:
    ValueError: when a count is below 1.

  Example:
    >>> annealed_step_weights(4, 2)(jnp.array(1)).tolist()
    [0.125, 0.125, 0.125, 0.625]

  Reference:
    Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, section 4 (MSL), and its released code.
  """
  for name, count in (("num_steps", num_steps), ("num_epochs", num_epochs), ("steps_per_epoch", steps_per_epoch)):
    check_count(name, count)

  def weights(meta_steps: Any) -> jax.Array:
    epoch = jnp.asarray(meta_steps // steps_per_epoch, float)
    early = jnp.maximum(1 - epoch / num_epochs, 0.03) / num_steps
    early = jnp.where(epoch < num_epochs, early, 0.0)
    return jnp.full(num_steps, early).at[-1].set(1 - (num_steps - 1) * early)

  return weights
