"""Geometry, rewards and time of the environments, against plain NumPy, and the same task over episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax import networks, rl
from warpjax.rl import maze as mazes
from warpjax.rl import navigation

UNIFORM = rl.recurrent(
  lambda params, shared, inputs: (inputs[1][..., :1], jnp.zeros((*inputs[1].shape[:-1], 4)), inputs[1][..., 0]),
  rl.categorical(),
)
GREEDY = rl.memoryless(lambda goal, shared, seen: (10 * (goal - seen), jnp.full_like(seen, -20.0)), rl.gaussian())
WANDERING = rl.memoryless(lambda params, shared, seen: (jnp.zeros_like(seen), jnp.zeros_like(seen)), rl.gaussian())


def task(goal, start=(0.0, 0.0)):
  return navigation.Navigation(jnp.asarray(goal, jnp.float32), jnp.asarray(start, jnp.float32))


@pytest.mark.parametrize("reward", ["distance", "squared_distance"])
def test_a_move_is_clipped_along_each_axis_and_rewarded_where_it_ends(reward):
  env = rl.navigation.point_navigation(reward, goal_size=0.05)
  actions = np.array([[0.5, -0.3], [7.0, -7.0], [1.5, 0.2], [0.0, 0.0]], np.float32)
  goal = np.array([0.27, -0.1], np.float32)

  @toy.jit
  def run(actions):
    step = lambda state, action: env.step_env(toy.key(), state, action, task(goal))[1:4]
    first = env.reset_env(toy.key(), task(goal))[1]
    return jax.lax.scan(lambda s, a: (step(s, a)[0], step(s, a)), first, actions)[1]

  positions, rewards, ended = run(actions)
  expected = np.cumsum(np.clip(0.1 * actions, -0.1, 0.1), axis=0)
  np.testing.assert_allclose(positions, expected, atol=1e-6)
  distance = np.linalg.norm(expected - goal, axis=1)
  np.testing.assert_allclose(rewards, -(distance**2 if reward == "squared_distance" else distance), atol=1e-6)
  np.testing.assert_array_equal(ended, np.all(np.abs(expected - goal) < 0.05, axis=1))
  assert list(ended) == [False, False, True, True]


def greedy_return(goal):
  position, total = np.zeros(2), 0.0
  for _ in range(100):
    position = position + np.clip(goal - position, -0.1, 0.1)
    total -= np.linalg.norm(position - goal)
    if np.all(np.abs(position - goal) < 0.01):
      break
  return total


@pytest.fixture(scope="module")
def greedy():
  """Goals, and episodes of a policy that sees them."""
  env = rl.navigation.point_navigation()
  goals = np.random.default_rng(0).uniform(-0.5, 0.5, (40, 2)).astype(np.float32)
  one = lambda goal: rl.rollout(env, GREEDY, goal, (), task(goal), toy.key(), num_steps=100, num_episodes=2)
  return goals, jax.device_get(toy.jit(jax.vmap(one))(goals))


def test_an_oracle_has_the_best_return_there_is(greedy):
  goals, episodes = greedy
  returns = episodes.rewards.sum(axis=1)
  np.testing.assert_allclose(returns[:, 0], [greedy_return(goal) for goal in goals], atol=1e-3)
  # -0.50 on average over goals, of which 40 have an interval of 0.10; the released oracle, noisy, has -2.29 +/- 0.14.
  assert abs(returns.mean() + 0.50) < 0.15


def test_the_initial_policy_has_the_published_return_of_a_random_one():
  """-82.66 +/- 2.16 on 40 goals in the released results, of one network; here four networks."""
  network = networks.from_linen(networks.GaussianMLP())
  policy, env = rl.memoryless(network.apply, rl.gaussian()), rl.navigation.point_navigation()

  def returned(key):
    """Of one network, over 40 goals and 20 episodes in each."""
    params, shared = network.init(jax.random.fold_in(key, 0), jnp.zeros(2))
    play = lambda task, key: rl.rollout(env, policy, params, shared, task, key, num_steps=100, num_episodes=20)
    keys = jax.random.split(jax.random.fold_in(key, 1), 40)
    tasks = jax.vmap(navigation.sampler())(keys).query
    return jnp.mean(jax.vmap(lambda task, key: play(task, key).mean_return())(tasks, keys))

  returns = np.asarray(toy.jit(lambda keys: jax.lax.map(returned, keys))(jax.random.split(toy.key(), 4)))
  # Over 12 networks the mean is -76.3 and the deviation 6.5: the published one is a deviation away, and here 2 are let.
  assert np.std(returns) < 13 and abs(returns.mean() + 82.66) < 13


def test_an_episode_ends_at_the_goal_and_every_episode_has_the_same_one(greedy):
  goals, episodes = greedy
  lengths = episodes.mask.sum(axis=1)
  np.testing.assert_array_equal(lengths, np.broadcast_to(np.ceil(10 * np.abs(goals).max(1) - 0.1)[:, None], (40, 2)))
  assert not episodes.rewards[episodes.mask == 0].any()
  np.testing.assert_allclose(episodes.rewards[:, :, 0], episodes.rewards[:, :, 1], atol=1e-6)  # noise of exp(-20)


def test_wandering_episodes_last_to_the_horizon_and_starts_vary_on_demand():
  @toy.jit
  def both(key):
    play = lambda env, start: rl.rollout(
      env, WANDERING, (), (), task((9.0, 9.0), start), key, num_steps=7, num_episodes=500
    )
    return play(rl.navigation.point_navigation(), (0.2, 0.1)), play(
      rl.navigation.point_navigation(varying_start=True), (0.2, 0.1)
    )

  fixed, varying = jax.device_get(both(toy.key()))
  assert fixed.mask.all() and fixed.rewards.shape == (7, 500)
  np.testing.assert_allclose(fixed.observations[0], np.broadcast_to([0.2, 0.1], (500, 2)), atol=1e-7)
  starts = varying.observations[0]
  assert np.abs(starts).max() <= 0.5 and starts.min() < -0.45 and starts.max() > 0.45
  moves = np.diff(fixed.observations, axis=0)
  np.testing.assert_allclose(moves, np.clip(0.1 * fixed.actions[:-1], -0.1, 0.1), atol=1e-6)
  assert abs(fixed.actions.std() - 1) < 0.05


def test_goals_fill_the_unit_square():
  goals = np.asarray(toy.jit(jax.vmap(navigation.sampler()))(jax.random.split(toy.key(), 500)).query.goal)
  assert np.abs(goals).max() <= 0.5 and goals.max() > 0.48 and goals.min() < -0.48


def test_the_maze_has_97_free_cells_of_which_96_can_be_goals():
  walls = mazes.walls(13)
  assert walls[0].all() and walls[:, -1].all() and walls[2, 2] and walls[4, 10] and not walls[6, 6]
  assert len(mazes.free_cells(13)) == 97 and len(mazes.goal_cells(13)) == 96
  goals = np.asarray(toy.jit(lambda key: mazes.goals(key, (3000,)))(toy.key()))
  assert {tuple(goal) for goal in goals} == {tuple(cell) for cell in mazes.goal_cells(13)}


@pytest.fixture(scope="module")
def wanderings():
  """States before and after every step of random actions, `[steps, episodes]`, with goals near the centre."""
  env = rl.maze.maze(penalty=1.0)
  goals = jnp.asarray(mazes.goal_cells(13)[np.random.default_rng(0).integers(30, 66, 64)])
  actions = jnp.asarray(np.random.default_rng(1).integers(0, 4, (200, 64)))

  @toy.jit
  def run(goals, actions):
    def step(state, inputs):
      index, action = inputs
      keys = jax.random.split(jax.random.fold_in(toy.key(), index), 64)
      seen, after, reward, ended, _ = jax.vmap(env.step_env)(keys, state, action, goals)
      return after, (state.position, after.position, reward, ended, seen)

    _, start = jax.vmap(env.reset_env)(jax.random.split(toy.key(), 64), goals)
    return jax.lax.scan(step, start, (jnp.arange(200), actions))[1]

  return np.asarray(goals), np.asarray(actions), jax.device_get(run(goals, actions))


def test_moves_walls_and_teleports(wanderings):
  goals, actions, (before, after, rewards, ended, _) = wanderings
  walls, moves = mazes.walls(13), np.array(mazes.MOVES)
  ahead = before + moves[actions]
  blocked = walls[ahead[..., 0], ahead[..., 1]]
  reached = np.where(blocked[..., None], before, ahead)
  found = np.all(reached == goals, axis=-1)
  assert found.sum() > 20 and blocked.sum() > 100
  np.testing.assert_array_equal(rewards, 10.0 * found - 1.0 * blocked)
  np.testing.assert_array_equal(after[~found], reached[~found])
  landed, their_goals = after[found], np.broadcast_to(goals, after.shape)[found]
  assert not walls[landed[:, 0], landed[:, 1]].any()
  assert not np.all(landed == their_goals, axis=-1).any()
  assert len({tuple(cell) for cell in landed}) > 0.3 * len(landed)
  assert not ended.any()


def test_the_observation(wanderings):
  _, actions, (_, after, rewards, _, seen) = wanderings
  padded = np.pad(mazes.walls(13), 1, constant_values=True)
  rows, columns = after[..., 0], after[..., 1]
  patch = np.stack([padded[rows + i, columns + j] for i in range(3) for j in range(3)], axis=-1)
  np.testing.assert_array_equal(seen[..., :9], patch)
  np.testing.assert_array_equal(seen[..., 9:11], np.broadcast_to([0, 1], (200, 64, 2)))
  np.testing.assert_allclose(seen[..., 11], np.broadcast_to((np.arange(200) + 1)[:, None] / 200, (200, 64)), rtol=1e-6)
  np.testing.assert_array_equal(seen[..., 12], rewards)
  np.testing.assert_array_equal(seen[..., 13:], np.eye(4)[actions])


def test_a_teleport_is_uniform_over_the_other_free_cells():
  env, goal, above = rl.maze.maze(5), jnp.array([3, 3]), jnp.array([2, 3])
  start = toy.jit(env.reset_env)(toy.key(), goal)[1]._replace(position=above)
  go = toy.jit(jax.vmap(lambda key: env.step_env(key, start, jnp.array(1), goal)[1:3]))
  state, reward = go(jax.random.split(toy.key(), 4000))
  assert np.all(reward == 10)
  cells, counts = np.unique(np.asarray(state.position), axis=0, return_counts=True)
  assert {tuple(c) for c in cells} == {tuple(c) for c in mazes.free_cells(5)} - {(3, 3)}
  assert np.all(np.abs(counts - 4000 / len(cells)) < 5 * np.sqrt(4000 / len(cells)))


def test_rewards_of_a_rollout_are_those_of_their_own_action():
  goals = jnp.asarray(mazes.goal_cells(13)[30:62])

  @toy.jit
  def play(goals, key):
    return rl.rollout(rl.maze.maze(), UNIFORM, (), (), goals, key, num_steps=200, num_episodes=32, task_axis=0)

  episodes = jax.device_get(play(goals, toy.key()))
  np.testing.assert_array_equal(episodes.observations[1:, :, 12], episodes.rewards[:-1])
  np.testing.assert_array_equal(episodes.observations[1:, :, 13:], np.eye(4)[episodes.actions[:-1]])
  assert episodes.mask.all() and episodes.rewards.sum() > 0
  assert abs(np.bincount(episodes.actions.ravel(), minlength=4) / 6400 - 0.25).max() < 0.03


def test_a_held_goal_stays_after_resets_and_rewards_and_over_two_episodes():
  gymnax = pytest.importorskip("gymnax", reason="the rl extra is not installed")
  env, params = gymnax.make("MetaMaze-misc")
  held, goal = rl.HeldGoal(env, params), jnp.array([4, 5])

  @toy.jit
  def two_episodes(key):
    def episode(key):
      _, start = held.reset_env(key, goal)

      def step(state, key):
        _, state, reward, ended, _ = held.step_env(key, state, jax.random.randint(key, (), 0, 4), goal)
        return state, (state.goal, reward, ended)

      return start.goal, jax.lax.scan(step, start, jax.random.split(key, 200))[1]

    drawn = jax.vmap(lambda key: env.reset_env(key, params)[1].goal)(jax.random.split(key, 20))
    return drawn, jax.lax.map(episode, jax.random.split(key, 2))

  drawn, (first, (goals, rewards, ended)) = jax.device_get(two_episodes(toy.key()))
  assert len(np.unique(drawn, axis=0)) > 5  # what gymnax does at every reset
  np.testing.assert_array_equal(first, np.broadcast_to(goal, (2, 2)))
  np.testing.assert_array_equal(goals, np.broadcast_to(goal, (2, 200, 2)))
  assert np.all((rewards > 0).sum(axis=1) >= 1) and not np.any(rewards[:, -1] > 0) and not ended.any()


def test_gymnax_with_a_held_goal_is_the_same_maze():
  gymnax = pytest.importorskip("gymnax", reason="the rl extra is not installed")
  env, params = gymnax.make("MetaMaze-misc")
  np.testing.assert_array_equal(~np.asarray(env.env_map), mazes.walls(11))
  ours, theirs = rl.maze.maze(11), rl.HeldGoal(env, params)
  goals = jnp.asarray(mazes.goal_cells(11))

  @toy.jit
  def play(goals, key):
    run = lambda env: rl.rollout(env, UNIFORM, (), (), goals, key, num_steps=200, num_episodes=64, task_axis=0)
    return run(ours), run(theirs)

  mine, other = jax.device_get(play(goals, toy.key()))
  returns = np.stack([mine.rewards.sum(0), other.rewards.sum(0)])
  spread = returns.std(axis=1, ddof=1) / 8
  assert abs(returns[0].mean() - returns[1].mean()) < 4 * np.linalg.norm(spread)
  assert abs(returns[1].mean() - 5.8) < 4 * 1.5 * spread[1]  # 5.8: 64 episodes of gymnax's own
  np.testing.assert_array_equal(mine.observations[0, :, :9], other.observations[0, :, :9])
  # A task lasts: every reward of an episode is earned beside that episode's own goal.
  assert other.mask.all()


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (
      lambda: rl.navigation.point_navigation("sparse"),
      "reward must be one of 'distance', 'squared_distance'; got 'sparse'",
    ),
    (lambda: rl.navigation.point_navigation(goal_size=-1), "goal_size"),
    (lambda: rl.maze.maze(12), "size must be odd"),
    (lambda: rl.maze.maze(13, 0), "num_steps"),
    (lambda: rl.reinforce(1.5), "discount"),
    (lambda: rl.batches(None, None, None, num_steps=5, num_episodes=0), "num_episodes"),
  ],
)
def test_bad_arguments_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
