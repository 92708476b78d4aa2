"""Point navigation in the plane: at most 0.1 a step along each axis, towards a goal that is not observed."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from warpjax.checks import check_choice
from warpjax.rl.environments import Step
from warpjax.types import Task, TaskSampler

Reward = Literal["distance", "squared_distance"]

HALF_WIDTH = 0.5  # goals, and varying starts, are uniform in [-0.5, 0.5]^2
MAX_MOVE = 0.1
HORIZON = 100


class Navigation(NamedTuple):
  """One task.

  Attributes:
    goal: `[2]`.
    start: Where every episode starts, `[2]`; ignored where starts vary.
  """

  goal: jax.Array
  start: jax.Array


class PointNavigation(NamedTuple):
  """The environment in the convention of MAML's released code, and its variants.

  The observation is the position; an action of 1 is a move of 0.1, the longest possible; the reward follows the move.
  An episode ends where both coordinates are within `goal_size` of the goal.

  Attributes:
    reward: "distance" (the released code, and Meta-SGD) or "squared_distance" (MAML's paper), negated.
    varying_start: Each episode starts uniformly in the unit square instead of at the task's start.
    goal_size: 0 for episodes that never end early.

  Example:
    >>> env, task = PointNavigation(), Navigation(jnp.array([0.3, 0.4]), jnp.zeros(2))
    >>> key = jax.random.key(0)
    >>> observation, state = env.reset_env(key, task)
    >>> observation, state, reward, terminated, _ = env.step_env(key, state, jnp.array([5.0, 0.5]), task)
    >>> observation.tolist(), bool(terminated)
    ([0.1, 0.05], False)

  Reference:
    Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.3, and its released code; Li et al. 2017, arXiv 1707.09835.
  """

  reward: Reward = "distance"
  varying_start: bool = False
  goal_size: float = 0.01

  def reset_env(self, key: jax.Array, task: Navigation) -> tuple[jax.Array, jax.Array]:
    """The start, as observation and as state."""
    start = task.start
    if self.varying_start:
      start = jax.random.uniform(key, start.shape, start.dtype, -HALF_WIDTH, HALF_WIDTH)
    return start, start

  def step_env(self, key: jax.Array, state: jax.Array, action: jax.Array, task: Navigation) -> Step:
    """A move of `0.1 * action`, clipped along each axis."""
    del key
    position = state + jnp.clip(MAX_MOVE * action, -MAX_MOVE, MAX_MOVE)
    offset = position - task.goal
    squared = jnp.sum(jnp.square(offset))
    reward = -squared if self.reward == "squared_distance" else -jnp.sqrt(squared)
    return position, position, reward, jnp.all(jnp.abs(offset) < self.goal_size), {}


def point_navigation(
  reward: Reward = "distance", varying_start: bool = False, goal_size: float = 0.01
) -> PointNavigation:
  """Makes a `PointNavigation` after checking its arguments.

  Args:
    reward: "distance" or "squared_distance", negated.
    varying_start: Each episode starts uniformly in the unit square instead of at the task's start.
    goal_size: 0 for episodes that never end early.

  Returns:
    The `PointNavigation`.

  Raises:
    ValueError: for an unknown reward, or a negative size.

  Example:
    >>> point_navigation("squared_distance", goal_size=0)
    PointNavigation(reward='squared_distance', varying_start=False, goal_size=0)
  """
  check_choice("reward", reward, Reward)
  if not goal_size >= 0:
    raise ValueError(f"goal_size must be at least 0; got {goal_size!r}")
  return PointNavigation(reward, varying_start, goal_size)


def sampler() -> TaskSampler:
  """Draws a task: a goal uniform in [-0.5, 0.5]^2, the start at the origin; support and query are the same task.

  Example:
    >>> sampler()(jax.random.key(0)).support.goal.shape
    (2,)
  """

  def sample(key: jax.Array) -> Task:
    task = Navigation(jax.random.uniform(key, (2,), minval=-HALF_WIDTH, maxval=HALF_WIDTH), jnp.zeros(2))
    return Task(task, task)

  return jax.tree_util.Partial(sample)
