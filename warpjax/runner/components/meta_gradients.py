"""Meta-gradients that a config's `meta_gradient` table names, but for warp-layers' and those of a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import optax

from warpjax import linear_solve, meta_gradients, training
from warpjax.meta_gradients.directions import Distribution
from warpjax.meta_gradients.own_parameters import Draw
from warpjax.runner.components.outer_step import NeedsTask, OuterStep, constant_schedule
from warpjax.runner.config import schema
from warpjax.training import compose
from warpjax.types import CarriedMetaGrad, InnerLoop, Params


def unrolled(
  inner: InnerLoop,
  derivative: Literal["mixed", "reverse", "first_order"] = "mixed",
  truncate: int | None = None,
  memory: Literal["auto", "save_all", "save_gradients", "recompute"] = "auto",
  multi_step_epochs: int = 0,
  steps_per_epoch: int = 500,
  first_order_epochs: int = 0,
) -> Any:
  """Through the inner loop; MAML++ anneals the loss over `multi_step_epochs`, and the derivative's order at once."""
  schema.at_least_one("config.meta_gradient", steps_per_epoch=steps_per_epoch)
  weights = None
  if multi_step_epochs:
    weights = meta_gradients.annealed_step_weights(inner.num_steps, multi_step_epochs, steps_per_epoch)
  of_order = lambda order: meta_gradients.unrolled(inner, order, truncate=truncate, memory=memory, step_weights=weights)
  if not first_order_epochs:
    return of_order(derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    first, then = (training.meta_step(of_order(order), optimizer, **kwargs) for order in ("first_order", derivative))
    return compose.in_phases(first_order_epochs * steps_per_epoch, first, then)

  return OuterStep(make_step, of_order(derivative))


def truncated_unroll(
  inner: InnerLoop, length: int, derivative: Literal["mixed", "reverse", "first_order"] = "first_order"
) -> OuterStep:
  """L2L's training: an outer update for every `length` steps of the inner loop."""
  meta_grad: CarriedMetaGrad = meta_gradients.truncated_unroll(inner, length, derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    return compose.repeated(training.meta_step(meta_grad, optimizer, **kwargs), inner.num_steps // length)

  checked = constant_schedule("which takes several steps a meta-step")
  return OuterStep(make_step, meta_grad, (checked,), inner.num_steps // length)


def reptile(
  inner: InnerLoop, carry_optimizer: bool = False, step_weights: Sequence[float] = (), in_turn: bool = False
) -> Any:
  """With `in_turn`, the released code's one optimizer state passes through the tasks of a meta-step."""
  if in_turn and not carry_optimizer:
    raise ValueError("config.meta_gradient.in_turn needs meta_gradient.carry_optimizer to be True; got False.")
  contribution = meta_gradients.reptile(step_weights or None)
  return meta_gradients.along_trajectory(inner, contribution, carry_optimizer="in_turn" if in_turn else carry_optimizer)


def implicit(
  inner: InnerLoop,
  operator: Literal["paper", "released"] = "paper",
  solver: Literal["cg", "neumann", "nystrom"] = "cg",
  solver_steps: int = 5,
  damping: float = 0.0,
  step_size: float | None = None,
) -> Any:
  """`solver_steps` is the rank of "nystrom"; `step_size` is that of "neumann"."""
  if step_size is not None and solver != "neumann":
    raise ValueError(f"config.meta_gradient.step_size needs solver to be 'neumann'; got {solver!r}.")
  if operator == "released" and (solver != "cg" or damping):
    raise ValueError(
      f"config.meta_gradient.operator must be 'paper' with another solver than undamped 'cg', the released one; "
      f"got {operator!r}, {solver!r} and a damping of {damping}."
    )
  if operator == "released":
    return meta_gradients.along_trajectory(inner, meta_gradients.implicit_released(solver_steps))
  make_solve: dict[str, Callable[..., Any]] = {
    "cg": linear_solve.cg,
    "neumann": partial(linear_solve.neumann, step_size=1.0 if step_size is None else step_size),
    "nystrom": linear_solve.nystrom,
  }
  solve = make_solve[solver](solver_steps, damping=damping)
  return meta_gradients.along_trajectory(inner, meta_gradients.implicit(solve))


def evolution_strategies(
  inner: InnerLoop, std: float = 0.01, num_pairs: int = 1, window: int = 0, distribution: Distribution = "normal"
) -> Any:
  """A `window` of 0 is the whole adaptation; another makes it persistent (PES)."""
  make = partial(meta_gradients.evolution_strategies, inner, std, num_pairs, distribution=distribution)
  return NeedsTask(lambda task: make(window=window, task=task)) if window else make()


def whole(made: Any, inner: InnerLoop, redrawn: Literal["nothing", "head"] = "nothing") -> Any:
  """A meta-gradient of what a table names.

  Args:
    made: A meta-gradient, or a contribution to one, such as `leap`, which is then gathered along the trajectory.
    inner: The inner loop.
    redrawn: With "head" each task, a test task too, starts from a head of its own at random, which is not learned.
  """
  made = meta_gradients.along_trajectory(inner, made) if isinstance(made, meta_gradients.Contribution) else made
  own = DRAWS[redrawn]
  return made if own is None else meta_gradients.own_parameters(made, own)


def another_head(key: jax.Array, initial: Params) -> Params:
  """The entries of the head, which are independent draws that nobody trains, in another order."""
  if "head" not in initial:
    raise ValueError(f"config.meta_gradient.redrawn needs a head that adapts; what adapts is {', '.join(initial)}.")
  leaves, tree = jax.tree.flatten(initial["head"])
  keys = jax.random.split(key, len(leaves))
  shuffled = [jax.random.permutation(k, leaf.ravel()).reshape(leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
  return {"head": jax.tree.unflatten(tree, shuffled)}


# By what is redrawn, the draw; None for none.
DRAWS: dict[str, Draw | None] = {"nothing": None, "head": another_head}
