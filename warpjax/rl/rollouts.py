"""Episodes: a scan over time, vmapped over episodes, as the batches of an inner loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from warpjax.checks import check_count
from warpjax.rl.environments import Environment
from warpjax.rl.policies import Policy
from warpjax.types import BatchFn, Params, PyTree, QueryBatchFn, Task


class Episodes(NamedTuple):
  """Episodes of one length, `[num_steps, num_episodes, ...]`.

  Attributes:
    observations: The policy's observation before each action.
    actions: The actions.
    rewards: The reward of each action; 0 once an episode has ended.
    mask: 1 up to the step that ended an episode, 0 after it.
  """

  observations: jax.Array
  actions: jax.Array
  rewards: jax.Array
  mask: jax.Array

  def mean_return(self) -> jax.Array:
    """The undiscounted return of an episode, on average."""
    return jnp.mean(jnp.sum(self.rewards, axis=0))


def where_alive(alive: jax.Array, leaf: jax.Array, other: jax.Array | float = 0) -> jax.Array:
  """`leaf [*alive.shape, ...]` where `alive` is not zero, else `other`.

  Example:
    >>> where_alive(jnp.array([1.0, 0.0]), jnp.array([[1.0], [jnp.nan]])).tolist()
    [[1.0], [0.0]]
  """
  axes = [1] * (leaf.ndim - alive.ndim)
  return jnp.where(alive.reshape(*alive.shape, *axes) != 0, leaf, other)


class Batch(NamedTuple):
  """The batch of a policy-gradient loss.

  Attributes:
    episodes: The episodes.
    advantages: The advantage of each action, `[num_steps, num_episodes]`.
  """

  episodes: Episodes
  advantages: jax.Array


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean weighted by the mask; values with a mask of zero are ignored. 0 if the mask is zero everywhere.

  Example:
    >>> float(masked_mean(jnp.array([1.0, 3.0, jnp.inf]), jnp.array([1.0, 1.0, 0.0])))
    2.0
  """
  count = jnp.sum(mask)
  return jnp.sum(jnp.where(mask > 0, values, 0) * mask) / jnp.where(count > 0, count, 1)


Rate = Callable[[Episodes], jax.Array]
"""`(episodes) -> advantages [num_steps, num_episodes]`."""


def rollout(
  env: Environment,
  policy: Policy,
  params: Params,
  shared: PyTree,
  task: PyTree,
  key: jax.Array,
  *,
  num_steps: int,
  num_episodes: int,
  task_axis: int | None = None,
  unroll: int = 1,
) -> Episodes:
  """Episodes of a policy in a task.

  Args:
    env: The environment.
    policy: The policy that acts.
    params: The policy's parameters.
    shared: The parameters that it shares with other tasks.
    task: The environment's `params`.
    key: The key of starts, actions and moves.
    num_steps: Length of the episodes; steps after the end of one are masked.
    num_episodes: The number of episodes, vmapped.
    task_axis: 0 if each episode has its own task, in leaves `[num_episodes, ...]`.
    unroll: Steps in an iteration of the compiled loop.

  Returns:
    `Episodes`.

  Example:
    >>> from warpjax import rl
    >>> still = rl.memoryless(lambda params, shared, seen: (0 * seen, 0 * seen - 9), rl.gaussian())
    >>> task = rl.navigation.Navigation(jnp.array([0.3, 0.4]), jnp.zeros(2))
    >>> env, key = rl.navigation.PointNavigation(), jax.random.key(0)
    >>> rollout(env, still, (), (), task, key, num_steps=3, num_episodes=2).mean_return().round(1)
    Array(-1.5, dtype=float32)
  """
  start_key, noise_key, step_key = jax.random.split(key, 3)
  observations, state = jax.vmap(env.reset_env, (0, task_axis))(jax.random.split(start_key, num_episodes), task)
  memory = policy.start(params, shared, observations)
  outputs = jax.eval_shape(policy.step, params, shared, memory, observations)[1].action
  noise = policy.distribution.noise(noise_key, (num_steps, num_episodes), outputs)

  def step(carry: PyTree, inputs: tuple[jax.Array, PyTree]) -> tuple[PyTree, Episodes]:
    observations, state, memory, alive = carry
    index, noise = inputs
    memory, outputs = policy.step(params, shared, memory, observations)
    actions = policy.distribution.sample(outputs.action, noise)
    keys = jax.random.split(jax.random.fold_in(step_key, index), num_episodes)
    after, state, rewards, ended, _ = jax.vmap(env.step_env, (0, 0, 0, task_axis))(keys, state, actions, task)
    # After the end the environment may return any value, and a mask of zero times infinity is NaN.
    keep = lambda tree: jax.tree.map(partial(where_alive, alive), tree)
    seen = Episodes(keep(observations), keep(actions), keep(rewards), alive.astype(rewards.dtype))
    return (after, state, memory, alive & ~ended), seen

  carry = (observations, state, memory, jnp.ones(num_episodes, bool))
  return jax.lax.scan(step, carry, (jnp.arange(num_steps), noise), unroll=unroll)[1]


def batches(
  env: Environment, policy: Policy, rate: Rate, *, num_steps: int, num_episodes: int, unroll: int = 1
) -> tuple[BatchFn, QueryBatchFn]:
  """Fresh episodes at every inner step, and for the meta-loss: the `batch_fn` and the `query_batch_fn` of a loop.

  Args:
    env: The environment; a task's `support` and `query` are its `params`.
    policy: The policy that acts, with the current parameters.
    rate: For example `reinforce(discount)`.
    num_steps: Length of the episodes.
    num_episodes: Episodes a batch.
    unroll: As for `rollout`.

  Returns:
    Both functions; their results are `Batch`es.

  Raises:
    ValueError: when a count is below 1.

  Example:
    >>> from warpjax import rl
    >>> still = rl.memoryless(lambda params, shared, seen: (0 * seen, 0 * seen - 9), rl.gaussian())
    >>> env, task = rl.navigation.PointNavigation(), rl.navigation.Navigation(jnp.array([0.3, 0.4]), jnp.zeros(2))
    >>> batch_fn, query_batch_fn = batches(env, still, rl.reinforce(), num_steps=3, num_episodes=2)
    >>> batch_fn(jax.random.key(0), task, 0, (), ()).advantages.shape
    (3, 2)
  """
  for name, count in (("num_steps", num_steps), ("num_episodes", num_episodes), ("unroll", unroll)):
    check_count(name, count)

  def fresh(key: jax.Array, task: PyTree, params: Params, shared: PyTree) -> Batch:
    episodes = rollout(
      env, policy, params, shared, task, key, num_steps=num_steps, num_episodes=num_episodes, unroll=unroll
    )
    return Batch(episodes, rate(episodes))

  def batch_fn(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    return fresh(jax.random.fold_in(key, step), support, params, shared)

  def query_batch_fn(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Batch:
    return fresh(key, task.query, params, shared)

  return batch_fn, query_batch_fn
