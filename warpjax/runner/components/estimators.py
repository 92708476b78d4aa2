"""Settings of the estimators that solve for the meta-gradient, or sample it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax

from warpjax import linear_solve, meta_gradients
from warpjax.meta_gradients.directions import Distribution
from warpjax.meta_gradients.redrawn import Draw
from warpjax.runner.components.outer_step import NeedsTask
from warpjax.types import InnerLoop, Params


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


def one_step(inner: InnerLoop) -> Any:
  """Differentiates the last inner step."""
  return meta_gradients.along_trajectory(inner, meta_gradients.one_step())


def forward_gradient(
  inner: InnerLoop,
  num_directions: int = 1,
  distribution: Distribution = "normal",
) -> Any:
  """Directional derivatives along random directions."""
  return meta_gradients.forward_gradient(inner, num_directions, distribution=distribution)


def evolution_strategies(
  inner: InnerLoop,
  std: float = 0.01,
  num_pairs: int = 1,
  window: int = 0,
  distribution: Distribution = "normal",
) -> Any:
  """A `window` of 0 is the whole adaptation; another makes it persistent (PES)."""
  make = partial(meta_gradients.evolution_strategies, inner, std, num_pairs, distribution=distribution)
  return NeedsTask(lambda task: make(window=window, task=task)) if window else make()


def redrawn(made: Any, redrawn: Literal["nothing", "head"] = "nothing") -> Any:
  """With "head" each task starts from a head of its own at random, which is not learned; a test task too."""
  own = DRAWS[redrawn]
  return made if own is None else meta_gradients.redrawn(made, own)


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
