"""Fixed episodes, on which meta-parameters are evaluated again after each update; shared by TRPO and PPO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from warpjax.adaptation import check_inner, run_steps
from warpjax.checks import check_choice, check_count, check_differentiable, check_learnable
from warpjax.problem import Problem, with_step
from warpjax.rl.objectives import PolicyGradient
from warpjax.rl.policies import Policy
from warpjax.rl.rollouts import Batch, masked_mean, where_alive
from warpjax.training.step import TrainState
from warpjax.training.task_batch import adapt_keys, count_tasks, default_task_chunk, first_task, map_tasks
from warpjax.types import AdaptState, Aux, InnerLoop, MetaParams, PyTree, Task
from warpjax.zero_gradient import check_at_zero

Derivative = Literal["reverse", "first_order"]
Gain = Callable[[jax.Array, jax.Array], jax.Array]
"""`(ratio, advantages) -> gain` of each action, `ratio = pi' / pi_old`."""


class Held(NamedTuple):
  """One task's episodes: the batch of each inner step `[num_steps, ...]`, that of the adapted policy, its outputs."""

  support: Batch
  query: Batch
  outputs: PyTree

  def return_before(self) -> jax.Array:
    """The mean return before adaptation."""
    return jax.tree.map(lambda leaf: leaf[0], self.support.episodes).mean_return()


Mean = Callable[[Callable[[Held, jax.Array], PyTree]], PyTree]
"""`(function of one task's episodes and key) -> its mean over tasks`."""
Objective = Callable[[MetaParams, Held, jax.Array], tuple[jax.Array, Aux]]
"""`(meta_params, held, key) -> (loss, aux)` of one task; aux holds `return` and `kl`."""


def hold(
  inner: InnerLoop,
  policy: Policy,
  state: TrainState,
  tasks: Task,
  *,
  axis_name: str | None = None,
  task_chunk: int | None = None,
) -> Mean:
  """Draws the episodes of every task at the parameters of `state`.

  Args:
    inner: The inner loop.
    policy: The policy that plays the episodes.
    state: The state of training.
    tasks: Leaves `[num_tasks, ...]`.
    axis_name: Axis that the tasks are spread over.
    task_chunk: Vmapped tasks; None chooses automatically.

  Returns:
    `mean(f)`, the mean of `f(episodes, key)` over the tasks, and over the axis.
  """
  check_learnable(state.meta_params)
  num_tasks = count_tasks(tasks)
  keys = adapt_keys(state.key, state.step, first_task(num_tasks, axis_name), num_tasks)
  chunk = min(num_tasks, task_chunk or default_task_chunk(tasks))
  one = lambda args: _hold_one(inner, policy, state.meta_params, *args)
  episodes = map_tasks(one, (tasks, keys), chunk)

  def mean(function: Callable[[Held, jax.Array], PyTree]) -> PyTree:
    results = map_tasks(lambda args: function(*args), (episodes, keys), chunk)
    average = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), results)
    return average if axis_name is None else jax.lax.pmean(average, axis_name)

  return mean


def _hold_one(inner: InnerLoop, policy: Policy, meta_params: MetaParams, task: Task, key: jax.Array) -> Held:
  problem = Problem(inner, meta_params, task, key)

  def step(state: AdaptState, index: jax.Array) -> tuple[AdaptState, PyTree]:
    batch = problem.batch(state.params, index)
    once = inner._replace(batch_fn=lambda *args: batch)  # drawn once, not again inside the step
    return problem._replace(inner=once).step(state, index).next, batch

  final, support = jax.lax.scan(step, problem.start(), jnp.arange(inner.num_steps))
  # Apart from the keys of the inner steps, which fold their index in.
  query_key = jax.random.fold_in(key, inner.num_steps)
  query = with_step(inner.query_batch_fn)(query_key, task, final.params, meta_params.shared, inner.num_steps)
  return Held(support, query, policy.sequence(final.params, meta_params.shared, query.episodes.observations).action)


def objective(inner: InnerLoop, policy: Policy, derivative: Derivative, gain: Gain) -> Objective:
  """`-mean(gain(pi' / pi_old, A))` over the steps of the adapted policy's episodes, with adaptation on the fixed ones.

  Args:
    inner: The inner loop.
    policy: The policy that plays the episodes.
    derivative: How the inner gradients are differentiated.
    gain: The gain of an action, from its ratio and its advantage.

  Returns:
    The objective of one task; `kl` is the divergence of the adapted policy from the one that played.
  """
  replay = lambda key, support, step, params, shared: jax.tree.map(lambda leaf: leaf[step], support)

  def loss(at: MetaParams, held: Held, key: jax.Array) -> tuple[jax.Array, Aux]:
    check_at_zero("the outer step", inner.rule, at.initial, held=derivative == "first_order")
    problem = Problem(inner._replace(batch_fn=replay), at, Task(held.support, ()), key)
    step = partial(problem.step, derivative=derivative)
    final, _, _ = run_steps(step, problem.start(), last=inner.num_steps)
    (episodes, advantages), old = held.query, held.outputs
    outputs = policy.sequence(final.params, at.shared, episodes.observations).action
    # After the end of an episode the old outputs are used, so that no ratio overflows where the mask is zero.
    outputs = jax.tree.map(partial(where_alive, episodes.mask), outputs, old)
    log_prob = lambda p: policy.distribution.log_prob(p, episodes.actions)
    mean = lambda values: masked_mean(values, episodes.mask)
    ratio = jnp.exp(log_prob(outputs) - log_prob(old))
    return -mean(gain(ratio, advantages)), {
      "return": episodes.mean_return(),
      "kl": mean(policy.distribution.kl(old, outputs)),
    }

  return loss


def check(name: str, inner: InnerLoop, derivative: str, task_chunk: Any = None) -> Policy:
  """The policy, once the arguments that TRPO and PPO share are known to be allowed.

  Raises:
    ValueError: naming the argument that is not.
  """
  check_inner(inner)
  if not isinstance(inner.loss_fn, PolicyGradient):
    raise ValueError(f"InnerLoop.loss_fn must be rl.policy_gradient(...) for {name}; got {inner.loss_fn!r}")
  check_choice("derivative", derivative, Derivative)
  check_differentiable(name, inner.rule)
  check_count("task_chunk", task_chunk, optional=True)
  return inner.loss_fn.policy
