"""The maze of Miconi et al. as WarpGrad uses it: pillars on a grid, a goal that the agent cannot see, 200 steps."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.checks import check_count
from warpjax.rl.environments import Step
from warpjax.types import Task, TaskSampler

NUM_ACTIONS = 4
NUM_FEATURES = 17
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


class MazeState(NamedTuple):
  """The state of an episode.

  Attributes:
    position: Row and column, `[2]`.
    time: The number of steps done.
    reward: The last reward.
    action: The last action.
  """

  position: jax.Array
  time: jax.Array
  reward: jax.Array
  action: jax.Array


class Maze(NamedTuple):
  """The maze; a task is its goal, `[2]` (row, column), which lasts over episodes.

  An episode starts at the centre. At the goal the agent earns `reward` and is moved to a free cell drawn uniformly,
  never a wall or the goal; nothing else ends or interrupts an episode. A move into a wall does not move the agent and
  costs `penalty`.

  The observation is `[17]`: the 3x3 patch of walls around the agent, 0, 1, time / num_steps, the last reward, and the
  last action as one of four (at the start: no reward, up).

  Attributes:
    size: Cells along a side, the border included; odd.
    num_steps: Length of an episode, by which time is divided.
    reward: Reward at the goal.
    penalty: Cost of a move into a wall.

  Example:
    >>> maze = Maze()
    >>> observation, state = maze.reset_env(jax.random.key(0), jnp.array([1, 1]))
    >>> observation.shape, state.position.tolist()
    ((17,), [6, 6])

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.3, after Miconi et al. 2019. In the released code the reward is
    credited to the next step, and agents may be moved into pillars, unlike in this environment.
  """

  size: int = 13
  num_steps: int = 200
  reward: float = 10.0
  penalty: float = 0.0

  def reset_env(self, key: jax.Array, goal: jax.Array) -> tuple[jax.Array, MazeState]:
    """The centre."""
    del key, goal
    centre = jnp.full(2, self.size // 2, jnp.int32)
    state = MazeState(centre, jnp.zeros((), jnp.int32), jnp.zeros(()), jnp.zeros((), jnp.int32))
    return self._observe(state), state

  def step_env(self, key: jax.Array, state: MazeState, action: jax.Array, goal: jax.Array) -> Step:
    """A move: 0 up, 1 down, 2 left, 3 right."""
    ahead = state.position + jnp.asarray(MOVES, jnp.int32)[action]
    blocked = jnp.asarray(walls(self.size))[ahead[0], ahead[1]]
    position = jnp.where(blocked, state.position, ahead)
    reached = jnp.all(position == goal)
    reward = self.reward * reached - self.penalty * blocked
    position = jnp.where(reached, self._elsewhere(key, goal), position)
    state = MazeState(position, state.time + 1, reward, jnp.asarray(action, jnp.int32))
    return self._observe(state), state, reward, jnp.zeros((), bool), {}

  def _elsewhere(self, key: jax.Array, goal: jax.Array) -> jax.Array:
    cells = jnp.asarray(free_cells(self.size))
    index = jax.random.randint(key, (), 0, len(cells) - 1)
    # The last cell replaces the goal, so that all cells are equally likely.
    return jnp.where(jnp.all(cells[index] == goal), cells[-1], cells[index])

  def _observe(self, state: MazeState) -> jax.Array:
    patch = jnp.asarray(_patches(self.size))[state.position[0], state.position[1]]
    rest = jnp.stack([jnp.zeros(()), jnp.ones(()), state.time / self.num_steps, state.reward])
    return jnp.concatenate([patch, rest, jax.nn.one_hot(state.action, NUM_ACTIONS)])


def maze(size: int = 13, num_steps: int = 200, reward: float = 10.0, penalty: float = 0.0) -> Maze:
  """Makes a `Maze` after checking its attributes.

  Args:
    size: As in `Maze`.
    num_steps: As in `Maze`.
    reward: As in `Maze`.
    penalty: As in `Maze`.

  Returns:
    The `Maze`.

  Raises:
    ValueError: for a size that is even or below 5, or a length below 1.

  Example:
    >>> maze(size=9, num_steps=50)
    Maze(size=9, num_steps=50, reward=10.0, penalty=0.0)
  """
  if size < 5 or size % 2 == 0:
    raise ValueError(f"size must be odd and at least 5; got {size!r}")
  check_count("num_steps", num_steps)
  return Maze(size, num_steps, reward, penalty)


@functools.cache
def walls(size: int) -> np.ndarray:
  """True for a wall, `[size, size]`: the border, and pillars at even rows and columns except at the centre.

  Example:
    >>> int((~walls(13)).sum())
    97
  """
  index = np.arange(size)
  border = (index == 0) | (index == size - 1)
  grid = border[:, None] | border | ((index % 2 == 0)[:, None] & (index % 2 == 0))
  grid[size // 2, size // 2] = False
  return grid


@functools.cache
def free_cells(size: int) -> np.ndarray:
  """The cells without a wall, `[n, 2]`."""
  return np.argwhere(~walls(size)).astype(np.int32)


def goal_cells(size: int) -> np.ndarray:
  """The possible cells of a goal: the free cells except the centre, where episodes start; `[n, 2]`."""
  cells = free_cells(size)
  return cells[np.any(cells != size // 2, axis=1)]


def goals(key: jax.Array, shape: tuple[int, ...], size: int = 13) -> jax.Array:
  """Goals drawn uniformly.

  Args:
    key: The key of the draw.
    shape: How many goals.
    size: Cells along a side, as of the maze.

  Returns:
    Cells (row, column), integers `[*shape, 2]`.

  Example:
    >>> goals(jax.random.key(0), (5,)).shape
    (5, 2)
  """
  cells = jnp.asarray(goal_cells(size))
  return cells[jax.random.randint(key, shape, 0, len(cells))]


def sampler(size: int = 13) -> TaskSampler:
  """Draws a task: one goal, for support and query.

  Args:
    size: Cells along a side, as of the maze.

  Returns:
    A sampler of `Task(goal, goal)`, the goal `[2]` (row, column).

  Example:
    >>> sampler()(jax.random.key(0)).support.shape
    (2,)
  """

  def sample(key: jax.Array) -> Task:
    goal = goals(key, (), size)
    return Task(goal, goal)

  return jax.tree_util.Partial(sample)


@functools.cache
def _patches(size: int) -> np.ndarray:
  padded = np.pad(walls(size), 1, constant_values=True)
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
  return windows.reshape(size, size, 9).astype(np.float32)
