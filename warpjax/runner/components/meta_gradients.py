"""Meta-gradients of a config's `meta_gradient` table, except those of warp-layers and of task families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import optax

from warpjax import linear_solve, meta_gradients, training
from warpjax.checks import check_counts
from warpjax.differentiation import Derivative, Memory
from warpjax.meta_gradients.directions import Distribution
from warpjax.meta_gradients.from_start import begun
from warpjax.meta_gradients.own_parameters import Draw
from warpjax.runner.components.outer_step import NeedsTask, OuterStep, constant_schedule
from warpjax.training import compose
from warpjax.types import Apply, CarriedMetaGrad, InnerLoop, LinearSolve, Params


def unrolled(
  inner: InnerLoop,
  derivative: Derivative = "mixed",
  truncate: int | None = None,
  memory: Memory = "auto",
  snapshots: int | None = None,
  multi_step_epochs: int = 0,
  steps_per_epoch: int | None = None,
  first_order_epochs: int = 0,
  online: bool | Sequence[float] = False,
) -> Any:
  """Differentiates through the inner loop.

  Args:
    inner: The inner loop.
    derivative: The order and mode of differentiation.
    truncate: Number of last steps that are differentiated; None for all.
    memory: What the forward pass stores for the backward pass.
    snapshots: Carries that "nested", "offload" and "treeverse" keep; None chooses by the number of steps.
    multi_step_epochs: Epochs over which MAML++ anneals the losses of all steps to that of the last; 0 for none.
    steps_per_epoch: Meta-steps of an epoch; None for 500.
    first_order_epochs: Epochs with first-order derivatives at the beginning (MAML++).
    online: The meta-loss is the mean of the inner losses before each step, or their sum with these weights, not the
      query loss.
  """
  check_counts(least=0, multi_step_epochs=multi_step_epochs, first_order_epochs=first_order_epochs)
  if steps_per_epoch is not None and not (multi_step_epochs or first_order_epochs):
    raise ValueError(
      f"config.meta_gradient.steps_per_epoch needs multi_step_epochs or first_order_epochs; got {steps_per_epoch}."
    )
  if first_order_epochs and derivative == "first_order":
    raise ValueError(
      f"config.meta_gradient.first_order_epochs must be 0 with derivative='first_order'; got {first_order_epochs}."
    )
  steps_per_epoch = 500 if steps_per_epoch is None else steps_per_epoch
  check_counts(steps_per_epoch=steps_per_epoch)
  weights = None
  if multi_step_epochs:
    weights = meta_gradients.annealed_step_weights(inner.num_steps, multi_step_epochs, steps_per_epoch)
  settings: Any = {"truncate": truncate, "memory": memory, "snapshots": snapshots, "online": online}
  of_order = lambda order: meta_gradients.unrolled(inner, order, step_weights=weights, **settings)
  if not first_order_epochs:
    return of_order(derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    first, then = (training.meta_step(of_order(order), optimizer, **kwargs) for order in ("first_order", derivative))
    return compose.in_phases(first_order_epochs * steps_per_epoch, first, then)

  return OuterStep(make_step, of_order(derivative))


def truncated_unroll(
  inner: InnerLoop,
  length: int,
  derivative: Derivative = "first_order",
  memory: Memory = "auto",
  snapshots: int | None = None,
  online: bool = False,
) -> OuterStep:
  """Truncated backpropagation (L2L): an outer update after every `length` steps of the inner loop.

  Args:
    inner: The inner loop.
    length: Inner steps in a segment, a divisor of `inner.num_steps`.
    derivative: How the steps of a segment are differentiated; see `unrolled`.
    memory: What is stored of the steps of a segment; see `unrolled`.
    snapshots: See `unrolled`.
    online: The mean of the inner losses before each step is differentiated, not of the query losses after it.
  """
  meta_grad: CarriedMetaGrad = meta_gradients.truncated_unroll(
    inner, length, derivative, memory=memory, snapshots=snapshots, online=online
  )

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    return compose.repeated(training.meta_step(meta_grad, optimizer, **kwargs), inner.num_steps // length)

  checked = constant_schedule("which takes several steps a meta-step")
  return OuterStep(make_step, meta_grad, (checked,), inner.num_steps // length)


def bootstrapped(
  inner: InnerLoop,
  apply: Apply,
  target_rate: float,
  target_steps: int = 1,
  match: Literal["parameters", "predictions", "probabilities"] = "parameters",
  derivative: Literal["mixed", "reverse", "first_order"] = "mixed",
) -> Any:
  """Bootstrapped meta-gradients (BMG).

  Args:
    inner: The inner loop.
    apply: The network.
    target_rate: Step size of the target's last step, on the query loss.
    target_steps: Steps from the end of the adaptation to the target.
    match: "parameters" takes their squared distance to the target's, "predictions" that of outputs on the query
      examples, and "probabilities" the KL divergence of class probabilities.
    derivative: How the inner steps are differentiated; see `unrolled`.
  """
  make: dict[str, Callable[..., meta_gradients.Match]] = {
    "predictions": meta_gradients.match_predictions,
    "probabilities": meta_gradients.match_probabilities,
  }
  matched = make[match](apply) if match in make else meta_gradients.match_parameters
  return meta_gradients.bootstrapped(inner, target_rate, target_steps, matched, derivative=derivative)


def reptile(
  inner: InnerLoop, carry_optimizer: bool = False, step_weights: Sequence[float] = (), in_turn: bool = False
) -> Any:
  """Reptile.

  Args:
    inner: The inner loop.
    carry_optimizer: Whether the state of the inner optimizer is carried from meta-step to meta-step.
    step_weights: Weights of the steps; empty for only the last parameters.
    in_turn: Whether one optimizer state passes through the tasks of a meta-step, as in the released code.
  """
  if in_turn and not carry_optimizer:
    raise ValueError("config.meta_gradient.in_turn needs meta_gradient.carry_optimizer to be True; got False.")
  contribution = meta_gradients.reptile(step_weights or None)
  return meta_gradients.along_trajectory(inner, contribution, carry_optimizer="in_turn" if in_turn else carry_optimizer)


Solver = Literal["cg", "neumann", "nystrom", "identity"]


def implicit(
  inner: InnerLoop,
  operator: Literal["paper", "released"] = "paper",
  solver: Solver = "cg",
  solver_steps: int = 5,
  damping: float = 0.0,
  step_size: float | None = None,
) -> Any:
  """The implicit meta-gradient (iMAML).

  Args:
    inner: The inner loop.
    operator: The linear operator of the paper or of the released code.
    solver: The solver of the linear system.
    solver_steps: Steps of the solver; the rank of "nystrom"; "identity" has none.
    damping: Added to the operator's diagonal.
    step_size: The step size of "neumann"; for "identity", the factor of the identity as the inverse; None for 1.
  """
  solve = _solve(solver, solver_steps, damping, step_size)
  if operator == "released" and (solver != "cg" or damping):
    raise ValueError(
      f"config.meta_gradient.operator must be 'paper' with another solver than undamped 'cg', the released one; "
      f"got {operator!r}, {solver!r} and a damping of {damping}."
    )
  if operator == "released":
    return meta_gradients.along_trajectory(inner, meta_gradients.implicit_released(solver_steps))
  return meta_gradients.along_trajectory(inner, meta_gradients.implicit(solve))


def _solve(solver: Solver, solver_steps: int, damping: float, step_size: float | None) -> LinearSolve:
  check_counts(solver_steps=solver_steps)
  if step_size is not None and solver not in ("neumann", "identity"):
    raise ValueError(f"config.meta_gradient.step_size needs solver to be 'neumann' or 'identity'; got {solver!r}.")
  size = 1.0 if step_size is None else step_size
  if solver == "identity":
    if damping:
      raise ValueError(f"config.meta_gradient.damping must be 0 with the solver 'identity'; got {damping}.")
    return linear_solve.identity(size)
  make: dict[str, Callable[..., LinearSolve]] = {
    "cg": linear_solve.cg,
    "neumann": partial(linear_solve.neumann, step_size=size),
    "nystrom": linear_solve.nystrom,
  }
  return make[solver](solver_steps, damping=damping)


def warm_implicit(
  inner: InnerLoop,
  solver: Solver = "cg",
  solver_steps: int = 1,
  damping: float = 0.0,
  step_size: float | None = None,
  carry_params: bool = False,
) -> CarriedMetaGrad:
  """The implicit meta-gradient whose solve starts from the solution of the last meta-step.

  Args:
    inner: The inner loop.
    solver: The solver of the linear system.
    solver_steps: Steps of the solver; the rank of "nystrom"; "identity" has none.
    damping: Added to the operator's diagonal.
    step_size: The step size of "neumann"; that of the one step of gradient descent of "identity"; None for 1.
    carry_params: Whether the adaptation starts from the last adapted parameters too.
  """
  solve = _solve(solver, solver_steps, damping, step_size)
  return meta_gradients.warm_implicit(inner, solve, carry_params=carry_params)


def penalty(
  inner: InnerLoop,
  weight: float,
  growth: float = 0.0,
  max_weight: float = 0.0,
  num_steps: int | None = None,
  carried: bool = False,
) -> Any:
  """The value-function penalty (V-PBGD, F2SA), of first order.

  Args:
    inner: The inner loop.
    weight: Weight of the inner loss against the query loss.
    growth: Added to the weight at every meta-step.
    max_weight: The weight that it grows to; 0 for no bound.
    num_steps: Inner steps of the penalised problem; None for `inner.num_steps`.
    carried: Whether both inner problems start from the solutions of the last meta-step.
  """
  if max_weight and not growth:
    raise ValueError(f"config.meta_gradient.max_weight needs growth above 0; got {max_weight}.")
  if growth < 0 or (max_weight and not 0 < weight <= max_weight):
    raise ValueError(
      "config.meta_gradient.growth must be at least 0, and max_weight 0 or at least the weight; got "
      f"{growth} and {max_weight} with the weight {weight}."
    )
  most = max_weight or float("inf")
  grows = lambda meta_steps: jax.numpy.minimum(weight + growth * meta_steps, most)
  return meta_gradients.penalty(inner, grows if growth else weight, num_steps=num_steps, carried=carried)


def evolution_strategies(
  inner: InnerLoop, std: float = 0.01, num_pairs: int = 1, window: int = 0, distribution: Distribution = "normal"
) -> Any:
  """Evolution strategies.

  Args:
    inner: The inner loop.
    std: Standard deviation of the perturbations.
    num_pairs: Antithetic pairs for each task.
    window: Inner steps between updates of persistent evolution strategies (PES); 0 for the whole adaptation.
    distribution: The distribution of the perturbations.
  """
  make = partial(meta_gradients.evolution_strategies, inner, std, num_pairs, distribution=distribution)
  return NeedsTask(lambda task: make(window=window, task=task)) if window else make()


def whole(
  made: Any,
  inner: InnerLoop,
  apply: Apply | None = None,
  redrawn: Literal["nothing", "head", "context"] = "nothing",
  start: Literal["learned", "prototypes"] = "learned",
) -> Any:
  """The meta-gradient of a table.

  Args:
    made: A meta-gradient, or a contribution to one, such as `leap`, which is computed along the trajectory.
    inner: The inner loop.
    apply: The network.
    redrawn: Parameters that each training or test task sets anew, instead of learned ones: with "head", a random
      head; with "context", context parameters of zero (CAVIA).
    start: The start of each task of training and test; with "prototypes", the head is computed from the support set
      (ProtoMAML).
  """
  made = meta_gradients.along_trajectory(inner, made) if isinstance(made, meta_gradients.Contribution) else made
  own, begin = DRAWS[redrawn], STARTS[start]
  if begin is not None:
    made = meta_gradients.from_start(inner, made, begin(apply))
  return made if own is None else meta_gradients.own_parameters(made, own)


def start_of(apply: Apply, redrawn: str, start: str) -> meta_gradients.Start | None:
  """The start of each training or test task under `redrawn` and `start`; None for the learned parameters."""
  own, begin = DRAWS[redrawn], STARTS[start]
  starts = [own and meta_gradients.drawn(own), begin and begin(apply)]
  return (lambda problem: begun(problem, *starts).meta_params) if any(starts) else None


def another_head(key: jax.Array, initial: Params) -> Params:
  """The entries of the head in another order; they are independent random draws that are never trained."""
  if "head" not in initial:
    raise ValueError(f"config.meta_gradient.redrawn needs a head that adapts; what adapts is {', '.join(initial)}.")
  leaves, tree = jax.tree.flatten(initial["head"])
  keys = jax.random.split(key, len(leaves))
  shuffled = [jax.random.permutation(k, leaf.ravel()).reshape(leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
  return {"head": jax.tree.unflatten(tree, shuffled)}


def zero_context(key: jax.Array, initial: Params) -> Params:
  """Context parameters of zero."""
  del key
  if "context" not in initial:
    raise ValueError(f"config.meta_gradient.redrawn needs a context that adapts; what adapts is {', '.join(initial)}.")
  return {"context": optax.tree.zeros_like(initial["context"])}


# For each choice of what is redrawn, the function that draws it.
DRAWS: dict[str, Draw | None] = {"nothing": None, "head": another_head, "context": zero_context}
# For each start of a task, the function that makes it for a network; None for the learned parameters.
STARTS: dict[str, Callable[..., meta_gradients.Start] | None] = {
  "learned": None,
  "prototypes": meta_gradients.prototypes,
}
