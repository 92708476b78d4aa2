"""Trust-region policy optimisation of the meta-parameters: a training step instead of an outer optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from warpjax import linear_solve
from warpjax.numerics import real_vdot
from warpjax.rl import held
from warpjax.rl.held import Derivative, Held
from warpjax.rl.policies import Policy
from warpjax.training.step import Metrics, StepFn, TrainState, all_finite, norms
from warpjax.types import Aux, InnerLoop, MetaParams, PyTree, Task


class Settings(NamedTuple):
  """The hyper-parameters of TRPO, with the defaults of MAML's released code.

  Products with the Hessian are exact here, and finite differences in that code.

  Attributes:
    max_kl: Bound of the mean KL divergence between adapted policies before and after a step, over the visited states.
    cg_steps: Products with the Hessian of the divergence.
    damping: Added to its diagonal.
    backtracks: Step lengths that are tried.
    shrink: Ratio of each step length to the one before.
  """

  max_kl: float = 0.01
  cg_steps: int = 10
  damping: float = 1e-5
  backtracks: int = 15
  shrink: float = 0.8


DEFAULT = Settings()


def meta_step(
  inner: InnerLoop,
  settings: Settings = DEFAULT,
  *,
  derivative: Derivative = "reverse",
  axis_name: str | None = None,
  task_chunk: int | None = None,
) -> StepFn:
  """One trust-region step on all of `MetaParams`, from fresh episodes before and after adaptation.

  The episodes are drawn once, at the present parameters. With fixed episodes, the gain of the adapted policies,
  `mean(pi' / pi_old A)`, and their divergence from the present ones are functions of the meta-parameters through the
  adaptation. The step is `sqrt(2 max_kl / x.Hx) x` along `x = H^{-1} g`, shortened until the gain grows and the
  divergence is allowed, or not taken.

  Args:
    inner: Its `loss_fn` is `objectives.policy_gradient(...)`, its batches are those of `rollouts.batches`; its query
      loss is not used.
    settings: The numbers.
    derivative: "first_order" leaves the derivatives of inner gradients out, in gain and divergence alike.
    axis_name: Axis that the tasks are spread over.
    task_chunk: Vmapped tasks; None chooses automatically.

  Returns:
    `(state, tasks) -> (state, metrics)` as `training.meta_step`; metrics are `loss`, `return` (after adaptation),
    `return_before`, `kl`, `step_scale` (0 for a step not taken), `grad_norm/<block>` and `finite`. The state of an
    outer optimizer is not changed.

  Raises:
    ValueError: when an argument is not allowed.

  Example:
    >>> import warpjax as wj
    >>> from warpjax import rl, training
    >>> policy = rl.memoryless(lambda w, shared, seen: (seen @ w, 0 * seen), rl.gaussian())
    >>> env = rl.navigation.PointNavigation()
    >>> draw, draw_query = rl.batches(env, policy, rl.reinforce(), num_steps=3, num_episodes=4)
    >>> inner = wj.InnerLoop(rl.policy_gradient(policy), wj.rules.sgd(0.1), 1, draw, query_batch_fn=draw_query)
    >>> state = training.init(jax.random.key(0), inner.rule, jnp.eye(2), (), optax.identity())
    >>> tasks = jax.vmap(rl.navigation.sampler())(jax.random.split(jax.random.key(1), 2))
    >>> step = jax.jit(meta_step(inner))
    >>> state, metrics = jax.eval_shape(step, state, tasks)  # step(state, tasks) computes them
    >>> sorted(metrics)
    ['finite', 'grad_norm/initial', 'kl', 'loss', 'return', 'return_before', 'step_scale']

  Reference:
    Schulman et al. 2015, arXiv 1502.05477; in meta-learning Finn et al. 2017, arXiv 1703.03400, section 5.3.
  """
  policy = check(inner, settings, derivative, task_chunk)
  objective = held.objective(inner, policy, derivative, lambda ratio, advantages: ratio * advantages)

  def step(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    start = state.meta_params
    mean = held.hold(inner, policy, state, tasks, axis_name=axis_name, task_chunk=task_chunk)

    def curvature(vector: MetaParams) -> MetaParams:
      def product(episodes: Held, key: jax.Array) -> MetaParams:
        slope = jax.grad(lambda at: objective(at, episodes, key)[1]["kl"])
        return jax.jvp(slope, (start,), (vector,))[1]

      return mean(product)

    evaluate = lambda at: mean(lambda episodes, key: objective(at, episodes, key))
    gradient = mean(lambda episodes, key: jax.grad(objective, has_aux=True)(start, episodes, key)[0])
    meta_params, metrics = trust_region(settings, start, gradient, curvature, evaluate)
    metrics["return_before"] = mean(lambda episodes, key: episodes.return_before())
    metrics |= norms("grad_norm", gradient)
    metrics["finite"] = all_finite(metrics)
    return TrainState(meta_params, state.opt_state, state.step + 1, state.key, state.carry), metrics

  return StepFn(step, axis_name)


def trust_region(
  settings: Settings,
  point: PyTree,
  gradient: PyTree,
  curvature: Callable[[PyTree], PyTree],
  evaluate: Callable[[PyTree], tuple[jax.Array, Aux]],
) -> tuple[PyTree, Metrics]:
  """The longest allowed step from `point`, or none.

  Args:
    settings: The numbers.
    point: Parameters.
    gradient: The gradient of the loss at `point`.
    curvature: The Hessian of the divergence at `point` times a vector.
    evaluate: `(parameters) -> (loss, aux)`; aux holds `kl`.

  Returns:
    The parameters after the step, and `loss` with the rest of aux before it, its `kl`, and `step_scale`.
  """
  # JAX's derivatives with respect to complex numbers are conjugates of directions.
  product = lambda vector: optax.tree.conj(curvature(vector))
  direction, _ = linear_solve.cg(settings.cg_steps, damping=settings.damping)(product, optax.tree.conj(gradient))
  bent = real_vdot(direction, optax.tree.add_scale(product(direction), settings.damping, direction))
  # A gradient of zero has no direction, and asks for no step.
  length = jnp.where(bent > 0, jnp.sqrt(2 * settings.max_kl / jnp.where(bent > 0, bent, 1)), 0)
  loss, aux = evaluate(point)

  def at(scale: jax.Array) -> PyTree:
    return jax.tree.map(lambda p, d: p - (scale * length * d).astype(p.dtype), point, direction)

  def attempt(state: Any) -> Any:
    count, _, _, _ = state
    scale = jnp.asarray(settings.shrink, length.dtype) ** count
    new_loss, new_aux = evaluate(at(scale))
    return count + 1, scale, new_aux["kl"], (new_loss < loss) & (new_aux["kl"] <= settings.max_kl)

  start = (jnp.zeros((), jnp.int32), jnp.zeros_like(length), jnp.zeros_like(loss), jnp.zeros((), bool))
  go_on = lambda state: ~state[3] & (state[0] < settings.backtracks)
  _, scale, kl, accepted = jax.lax.while_loop(go_on, attempt, start)
  scale, kl = jnp.where(accepted, scale, 0), jnp.where(accepted, kl, 0)
  moved = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), at(scale), point)
  return moved, {**aux, "loss": loss, "kl": kl, "step_scale": scale}


def check(inner: InnerLoop, settings: Settings, derivative: str, task_chunk: int | None = None) -> Policy:
  """The policy, once every argument of `meta_step` is known to be allowed; a ValueError names the one that is not."""
  policy = held.check("trpo", inner, derivative, task_chunk)
  for name, value in settings._asdict().items():
    if not value > 0 and not (name == "damping" and value == 0):
      raise ValueError(f"{name} must be above 0; got {value!r}")
  if not settings.shrink < 1:
    raise ValueError(f"shrink must be below 1; got {settings.shrink!r}")
  return policy
