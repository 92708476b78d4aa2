"""Proximal policy optimisation of the meta-parameters: several steps of the outer optimizer on one set of episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from warpjax.checks import check_count
from warpjax.rl import held
from warpjax.rl.held import Derivative
from warpjax.rl.policies import Policy
from warpjax.training.step import Metrics, StepFn, TrainState, all_finite, norms
from warpjax.types import InnerLoop, MetaParams, PyTree, Task


def clipped(ratio: jax.Array, advantages: jax.Array, clip: float) -> jax.Array:
  """`min(r A, clip(r, 1 - clip, 1 + clip) A)`: constant beyond the bounds.

  Example:
    >>> clipped(jnp.array([0.5, 1.5, 1.5]), jnp.array([1.0, 1.0, -1.0]), 0.2).tolist()
    [0.5, 1.2, -1.5]
  """
  # A minimum of equal products would share the gradient between them by comparing them with itself.
  beyond = jnp.where(advantages > 0, ratio > 1 + clip, ratio < 1 - clip)
  return jnp.where(beyond, jnp.where(advantages > 0, 1 + clip, 1 - clip), ratio) * advantages


def meta_step(
  inner: InnerLoop,
  optimizer: optax.GradientTransformation,
  *,
  clip: float = 0.2,
  epochs: int = 5,
  derivative: Derivative = "reverse",
  axis_name: str | None = None,
  task_chunk: int | None = None,
) -> StepFn:
  """`epochs` steps of the outer optimizer on all of `MetaParams`, from one set of episodes before and after adaptation.

  The episodes are drawn once, at the present parameters. With fixed episodes, adaptation and `-mean(min(r A, clip(r)
  A))`, `r = pi' / pi_old` of the adapted policies, are functions of the meta-parameters. The first epoch's gradient is
  the policy gradient, where r is 1.

  Args:
    inner: Its `loss_fn` is `objectives.policy_gradient(...)`, its batches are those of `rollouts.batches`; its query
      loss is not used.
    optimizer: The outer optimizer, over the whole `MetaParams`; each epoch is a step of it.
    clip: The distance of the ratio from 1 beyond which it gains nothing.
    epochs: Steps on the same episodes.
    derivative: "first_order" leaves the derivatives of inner gradients out.
    axis_name: Axis that the tasks are spread over.
    task_chunk: Vmapped tasks; None chooses automatically.

  Returns:
    `(state, tasks) -> (state, metrics)` as `training.meta_step`; metrics are `return` (after adaptation) and
    `return_before`, at the present parameters; `loss` and `kl` at the start of the last epoch; `grad_norm/<block>` of
    the first epoch; `param_norm/<block>` and `finite`.

  Raises:
    ValueError: when an argument is not allowed.

  Example:
    >>> import warpjax as wj
    >>> from warpjax import rl, training
    >>> policy = rl.memoryless(lambda w, shared, seen: (seen @ w, 0 * seen), rl.gaussian())
    >>> env = rl.navigation.PointNavigation()
    >>> draw, draw_query = rl.batches(env, policy, rl.reinforce(), num_steps=3, num_episodes=4)
    >>> inner = wj.InnerLoop(rl.policy_gradient(policy), wj.rules.sgd(0.1), 1, draw, query_batch_fn=draw_query)
    >>> state = training.init(jax.random.key(0), inner.rule, jnp.eye(2), (), optax.adam(0.01))
    >>> tasks = jax.vmap(rl.navigation.sampler())(jax.random.split(jax.random.key(1), 2))
    >>> step = jax.jit(meta_step(inner, optax.adam(0.01)))
    >>> state, metrics = jax.eval_shape(step, state, tasks)  # step(state, tasks) computes them
    >>> sorted(metrics)
    ['finite', 'grad_norm/initial', 'kl', 'loss', 'param_norm/initial', 'return', 'return_before']

  Reference:
    Schulman et al. 2017, arXiv 1707.06347, equation 7; over adaptation Rothfuss et al. 2018, arXiv 1810.06784.
  """
  policy = check(inner, clip, epochs, derivative, task_chunk)
  objective = held.objective(inner, policy, derivative, lambda ratio, advantages: clipped(ratio, advantages, clip))

  def step(state: TrainState, tasks: Task) -> tuple[TrainState, Metrics]:
    mean = held.hold(inner, policy, state, tasks, axis_name=axis_name, task_chunk=task_chunk)

    def epoch(point: tuple[MetaParams, PyTree], _: None) -> tuple[tuple[MetaParams, PyTree], tuple[Metrics, Metrics]]:
      meta_params, opt_state = point
      slope = jax.value_and_grad(objective, has_aux=True)
      (loss, aux), gradient = mean(lambda episodes, key: slope(meta_params, episodes, key))
      updates, opt_state = optimizer.update(gradient, opt_state, meta_params)
      return (optax.apply_updates(meta_params, updates), opt_state), (
        {**aux, "loss": loss},
        norms("grad_norm", gradient),
      )

    start = (state.meta_params, state.opt_state)
    (meta_params, opt_state), (seen, gradients) = jax.lax.scan(epoch, start, None, length=epochs)
    metrics = {name: values[-1] for name, values in seen.items()}
    metrics |= {name: values[0] for name, values in gradients.items()} | norms("param_norm", meta_params)
    metrics["return_before"] = mean(lambda episodes, key: episodes.return_before())
    metrics["finite"] = all_finite(metrics)
    return TrainState(meta_params, opt_state, state.step + 1, state.key, state.carry), metrics

  return StepFn(step, axis_name)


def check(inner: InnerLoop, clip: float, epochs: int, derivative: str, task_chunk: int | None = None) -> Policy:
  """The policy, once every argument of `meta_step` is known to be allowed; a ValueError names the one that is not."""
  policy = held.check("ppo", inner, derivative, task_chunk)
  if not clip > 0:
    raise ValueError(f"clip must be above 0; got {clip!r}")
  check_count("epochs", epochs)
  return policy
