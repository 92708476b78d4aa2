"""Trust-region policy optimisation of what is meta-learned: a training step in the place of an outer optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax import linear_solve
from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_differentiable
from warpjax.differentiation import check_choice
from warpjax.problem import Problem
from warpjax.rl.objectives import PolicyGradient
from warpjax.rl.policies import Policy
from warpjax.rl.rollouts import Batch
from warpjax.task_batch import adapt_keys, default_task_chunk, first_task
from warpjax.training import Metrics, StepFn, TrainState, averaging_over
from warpjax.types import AdaptState, Aux, InnerLoop, MetaParams, PyTree, Task

Derivative = Literal["reverse", "first_order"]


class Settings(NamedTuple):
  """The numbers of TRPO; the defaults are those of MAML's released code.

  Attributes:
    max_kl: Of the adapted policies before from those after a step, on average over the states visited.
    cg_steps: Products with the Hessian of the divergence.
    damping: Added to its diagonal.
    backtracks: Step lengths that are tried.
    shrink: Each over the one before.
  """

  max_kl: float = 0.01
  cg_steps: int = 10
  damping: float = 1e-5
  backtracks: int = 15
  shrink: float = 0.8


DEFAULT = Settings()


class _Held(NamedTuple):
  """One task's episodes: the batch of each inner step `[num_steps, ...]`, that of the adapted policy, its outputs."""

  support: Batch
  query: Batch
  outputs: PyTree


def meta_step(
  inner: InnerLoop,
  settings: Settings = DEFAULT,
  *,
  derivative: Derivative = "reverse",
  axis_name: str | None = None,
  task_chunk: int | None = None,
) -> StepFn:
  """One trust-region step on all of `MetaParams`, from fresh episodes before and after adaptation.

  The episodes are drawn once, at the present parameters. With them held, the gain of the adapted policies,
  `mean(pi' / pi_old A)`, and their divergence from the present ones are functions of the meta-parameters through the
  adaptation. The step is `sqrt(2 max_kl / x.Hx) x` along `x = H^{-1} g`, shortened until the gain grows and the
  divergence is allowed, or not taken.

  Args:
    inner: Its `loss_fn` is `objectives.policy_gradient(...)`, its batches are those of `rollouts.batches`; its query
      loss is not used.
    settings: The numbers.
    derivative: "first_order" leaves the derivatives of inner gradients out, in gain and divergence alike.
    axis_name: Axis that the tasks are spread over.
    task_chunk: Tasks side by side; None chooses.

  Returns:
    `(state, tasks) -> (state, metrics)` as `training.meta_step`; metrics are `loss`, `return` (after adaptation),
    `return_before`, `kl`, `step_scale` (0 for a step not taken), `grad_norm/<block>` and `finite`. The state of an
    outer optimizer is left alone.

  Raises:
    ValueError: when an argument is not allowed.

  Reference:
    Schulman et al. 2015, arXiv 1502.05477; in meta-learning Finn et al. 2017, arXiv 1703.03400, section 5.3.
  """
  policy = check(inner, settings, derivative)
  objective = _objective(inner, policy, derivative)

  def step(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    num_tasks = jax.tree.leaves(tasks)[0].shape[0]
    keys = adapt_keys(state.key, state.step, first_task(num_tasks, axis_name), num_tasks)
    chunk = min(num_tasks, task_chunk or default_task_chunk(tasks))
    here = state.meta_params
    episodes = jax.lax.map(lambda args: _hold(inner, policy, here, *args), (tasks, keys), batch_size=chunk)

    def mean(function: Callable[[_Held, jax.Array], PyTree]) -> PyTree:
      results = jax.lax.map(lambda args: function(*args), (episodes, keys), batch_size=chunk)
      average = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), results)
      return average if axis_name is None else jax.lax.pmean(average, axis_name)

    def curvature(vector: MetaParams) -> MetaParams:
      def product(held: _Held, key: jax.Array) -> MetaParams:
        slope = jax.grad(lambda at: objective(at, held, key)[1]["kl"])
        return jax.jvp(slope, (here,), (vector,))[1]

      return mean(product)

    judge = lambda at: mean(lambda held, key: objective(at, held, key))
    gradient = mean(lambda held, key: jax.grad(objective, has_aux=True)(here, held, key)[0])
    meta_params, metrics = trust_region(settings, here, gradient, curvature, judge)
    metrics["return_before"] = mean(lambda held, key: jax.tree.map(lambda e: e[0], held.support.episodes).mean_return())
    metrics |= {f"grad_norm/{k}": optax.tree.norm(v) for k, v in gradient._asdict().items() if jax.tree.leaves(v)}
    metrics["finite"] = jnp.isfinite(metrics["loss"]) & jnp.isfinite(optax.tree.norm(gradient))
    return TrainState(meta_params, state.opt_state, state.step + 1, state.key, state.carry), metrics

  return averaging_over(axis_name, step)


def trust_region(
  settings: Settings,
  here: PyTree,
  gradient: PyTree,
  curvature: Callable[[PyTree], PyTree],
  judge: Callable[[PyTree], tuple[jax.Array, Aux]],
) -> tuple[PyTree, Metrics]:
  """The longest allowed step from `here`, or none.

  Args:
    settings: The numbers.
    here: Parameters.
    gradient: Of the loss at `here`.
    curvature: The Hessian of the divergence at `here` times a vector.
    judge: `(parameters) -> (loss, aux)`; aux holds `kl`.

  Returns:
    The parameters after the step, and `loss` with the rest of aux before it, its `kl`, and `step_scale`.
  """
  direction, _ = linear_solve.cg(settings.cg_steps, damping=settings.damping)(curvature, gradient)
  bent = optax.tree.vdot(direction, optax.tree.add_scale(curvature(direction), settings.damping, direction))
  # A gradient of zero has no direction, and asks for no step.
  length = jnp.where(bent > 0, jnp.sqrt(2 * settings.max_kl / jnp.where(bent > 0, bent, 1)), 0)
  loss, aux = judge(here)

  def at(scale: jax.Array) -> PyTree:
    return jax.tree.map(lambda p, d: p - (scale * length * d).astype(p.dtype), here, direction)

  def attempt(state: Any) -> Any:
    count, _, _, _ = state
    scale = jnp.asarray(settings.shrink, length.dtype) ** count
    new_loss, new_aux = judge(at(scale))
    return count + 1, scale, new_aux["kl"], (new_loss < loss) & (new_aux["kl"] <= settings.max_kl)

  start = (jnp.zeros((), jnp.int32), jnp.zeros_like(length), jnp.zeros_like(loss), jnp.zeros((), bool))
  go_on = lambda state: ~state[3] & (state[0] < settings.backtracks)
  _, scale, kl, accepted = jax.lax.while_loop(go_on, attempt, start)
  scale, kl = jnp.where(accepted, scale, 0), jnp.where(accepted, kl, 0)
  moved = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), at(scale), here)
  return moved, {**aux, "loss": loss, "kl": kl, "step_scale": scale}


def _hold(inner: InnerLoop, policy: Policy, here: MetaParams, task: Task, key: jax.Array) -> _Held:
  problem = Problem(inner, here, task, key)

  def step(state: AdaptState, index: jax.Array) -> tuple[AdaptState, PyTree]:
    batch = problem.batch(state.params, index)
    once = inner._replace(batch_fn=lambda *args: batch)  # drawn once, not again inside the step
    return problem._replace(inner=once).step(state, index).next, batch

  final, support = jax.lax.scan(step, problem.start(), jnp.arange(inner.num_steps))
  # Apart from the keys of the inner steps, which fold their index in.
  query = inner.query_batch_fn(jax.random.fold_in(key, inner.num_steps), task, final.params, here.shared)
  return _Held(support, query, policy.sequence(final.params, here.shared, query.episodes.observations).action)


def _objective(inner: InnerLoop, policy: Policy, derivative: Derivative) -> Callable[..., tuple[jax.Array, Aux]]:
  replay = lambda key, support, step, params, shared: jax.tree.map(lambda leaf: leaf[step], support)

  def objective(at: MetaParams, held: _Held, key: jax.Array) -> tuple[jax.Array, Aux]:
    problem = Problem(inner._replace(batch_fn=replay), at, Task(held.support, ()), key)
    final, _, _ = run_steps(problem, problem.start(), last=inner.num_steps, derivative=derivative)
    (episodes, advantages), old = held.query, held.outputs
    outputs = policy.sequence(final.params, at.shared, episodes.observations).action
    log_prob = lambda p: policy.distribution.log_prob(p, episodes.actions)
    mean = lambda values: jnp.sum(values * episodes.mask) / jnp.sum(episodes.mask)
    gain = mean(jnp.exp(log_prob(outputs) - log_prob(old)) * advantages)
    return -gain, {"return": episodes.mean_return(), "kl": mean(policy.distribution.kl(old, outputs))}

  return objective


def check(inner: InnerLoop, settings: Settings, derivative: str) -> Policy:
  """The policy, once every argument of `meta_step` is known to be allowed; a ValueError names the one that is not."""
  check_inner(inner)
  if not isinstance(inner.loss_fn, PolicyGradient):
    raise ValueError(f"InnerLoop.loss_fn must be rl.policy_gradient(...) for trpo; got {inner.loss_fn!r}")
  check_choice("derivative", derivative, Derivative)
  check_differentiable("trpo", inner.rule)
  for name, value in settings._asdict().items():
    if not value > 0 and not (name == "damping" and value == 0):
      raise ValueError(f"{name} must be above 0; got {value!r}")
  if not settings.shrink < 1:
    raise ValueError(f"shrink must be below 1; got {settings.shrink!r}")
  return inner.loss_fn.policy
