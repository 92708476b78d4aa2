"""Reinforcement learning: navigation and the maze, their networks, TRPO, PPO, and online learning."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from warpjax import networks, rl
from warpjax.checks import check_counts
from warpjax.rl import maze as mazes
from warpjax.rl import ppo, trpo
from warpjax.rl.navigation import Reward
from warpjax.rl.objectives import Estimator
from warpjax.runner.components import outer_step
from warpjax.runner.components.outer_step import OuterStep
from warpjax.runner.config.schema import OfProblem, OfTest, OfTraining
from warpjax.runner.families.base import Data, Spec, frozen
from warpjax.types import Apply, InnerLoop, Params, PyTree, Task


def navigation(
  start: OfProblem[Literal["origin", "uniform"]] = "origin",
  reward: OfProblem[Reward] = "distance",
  episodes: OfTraining[int] = 20,
  test_episodes: OfTest[int] = 40,
  horizon: OfProblem[int] = 100,
  discount: OfTraining[float] = 0.99,
  estimator: OfTraining[Estimator] = "score",
  goal_size: OfProblem[float] = 0.01,
) -> Spec:
  """Point navigation; each inner step, and the query, is a batch of new episodes.

  Args:
    start: The start of an episode.
    reward: The reward.
    episodes: Episodes of a batch in training.
    test_episodes: Episodes of a batch in the test.
    horizon: Steps of an episode.
    discount: Discount of the return.
    estimator: The estimator of the policy gradient.
    goal_size: An episode ends where both coordinates are this near the goal; 0 for never.
  """
  check_counts(episodes=episodes, test_episodes=test_episodes, horizon=horizon)
  env = rl.navigation.point_navigation(reward, start == "uniform", goal_size)
  rate = rl.reinforce(discount)

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    policy = gaussian_policy(network.apply)
    count = episodes if training else test_episodes
    batch_fn, query_batch_fn = rl.batches(env, policy, rate, num_steps=horizon, num_episodes=count)
    loss_fn = rl.policy_gradient(policy, estimator)
    return inner._replace(loss_fn=loss_fn, batch_fn=batch_fn, query_batch_fn=query_batch_fn, query_loss_fn=None)

  sampler = rl.navigation.sampler()
  return Spec("return", 2, lambda: Data(sampler, sampler, {}), loop=loop, own_batches=True)


def maze(
  size: OfProblem[int] = 13,
  num_steps: int = 200,
  mazes_at_once: OfTraining[int] = 30,
  test_episodes: OfTest[int] = 4,
  discount: OfTraining[float] = 0.9,
  trace: OfTraining[float] = 1.0,
  value_cost: OfTraining[float] = 0.1,
  concentration_cost: OfTraining[float] = 0.03,
) -> Spec:
  """The maze; an inner step is one episode in each of several mazes, every time with new goals.

  A test task is one goal. In the test the weights are fixed, and the agent's memory adapts to the goal.

  Args:
    size: Height and width of the maze.
    num_steps: Steps of an episode.
    mazes_at_once: Mazes of an inner step.
    test_episodes: Episodes of a test task.
    discount: Discount of the return.
    trace: Trace parameter of the advantage estimate.
    value_cost: Weight of the value loss.
    concentration_cost: Weight of the sum of squared probabilities, in place of an entropy bonus.
  """
  check_counts(mazes_at_once=mazes_at_once, test_episodes=test_episodes)
  env = mazes.maze(size, num_steps)

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    policy = rl.recurrent(network.apply, rl.categorical())
    play = partial(rl.rollout, env, policy, num_steps=num_steps)

    def batch_fn(key: jax.Array, support: PyTree, step: Any, params: Params, shared: PyTree) -> rl.Episodes:
      goal_key, play_key = jax.random.split(jax.random.fold_in(key, step))
      goals = mazes.goals(goal_key, (mazes_at_once,), size)
      return play(params, shared, goals, play_key, num_episodes=mazes_at_once, task_axis=0)

    def query_batch_fn(key: jax.Array, task: Task, params: Params, shared: PyTree) -> rl.Episodes:
      return play(params, shared, task.query[0], key, num_episodes=test_episodes)

    loss_fn = rl.a2c(policy, discount, trace=trace, value_cost=value_cost, concentration_cost=concentration_cost)
    rule = inner.rule if training else frozen(inner.rule)
    return inner._replace(
      loss_fn=loss_fn, rule=rule, batch_fn=batch_fn, query_batch_fn=query_batch_fn, query_loss_fn=None
    )

  def sample(key: jax.Array) -> Task:
    goal = mazes.goals(key, (), size)
    return Task((goal,), (goal,))

  return Spec("return", mazes.NUM_ACTIONS, lambda: Data(sample, sample, {}), loop=loop, own_batches=True)


def gaussian_policy(apply: Apply) -> rl.Policy:
  """The policy of a `gaussian_mlp`."""
  return rl.memoryless(apply, rl.gaussian())


def policy_loss(apply: Apply) -> Any:
  """The default loss of the metric "return", which `navigation` and `maze` replace."""
  return rl.policy_gradient(gaussian_policy(apply))


def recurrent_network(module: Callable[..., Any]) -> Callable[..., networks.Network]:
  """A network of the maze: `module(width, num_actions)`."""

  def network(num_outputs: int, width: int = 100) -> networks.Network:
    """The network.

    Args:
      num_outputs: Number of actions.
      width: Units of the recurrent layer.
    """
    whole = networks.from_linen(module(width, num_outputs))

    def init(key: jax.Array, x: Any) -> tuple[Params, PyTree]:
      del x
      first: Any = (None, jnp.zeros((1, mazes.NUM_FEATURES)))  # traced, so that nothing is compiled
      return whole.init(key, first)

    return networks.Network(init, whole.apply)

  return network


def trust_region(
  inner: InnerLoop,
  max_kl: float = 0.01,
  cg_steps: int = 10,
  damping: float = 1e-5,
  backtracks: int = 15,
  derivative: Literal["reverse", "first_order"] = "reverse",
) -> OuterStep:
  """TRPO as the outer step, with the optimizer "none".

  Args:
    inner: The inner loop.
    max_kl: Bound of the mean KL divergence.
    cg_steps: Steps of conjugate gradients.
    damping: Added to the Fisher matrix's diagonal.
    backtracks: Step lengths that the line search tries.
    derivative: Order of the meta-gradient.
  """
  settings = trpo.Settings(max_kl, cg_steps, damping, backtracks)
  trpo.check(inner, settings, derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    del optimizer
    return trpo.meta_step(inner, settings, derivative=derivative, **kwargs)

  return OuterStep(make_step, checks=(_check_no_optimizer,))


def _check_no_optimizer(tables: outer_step.Tables, tasks_per_step: int) -> None:
  del tasks_per_step
  if (name := tables["optimizer"]["name"]) != "none":
    raise ValueError(f"config.optimizer.name must be 'none' with 'trpo', whose step is its own; got {name!r}.")


def proximal(
  inner: InnerLoop, clip: float = 0.2, epochs: int = 5, derivative: Literal["reverse", "first_order"] = "reverse"
) -> OuterStep:
  """PPO as the outer step.

  Args:
    inner: The inner loop.
    clip: Bound of the probability ratio's distance from 1.
    epochs: Optimizer steps on the same episodes.
    derivative: Order of the meta-gradient.
  """
  ppo.check(inner, clip, epochs, derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    return ppo.meta_step(inner, optimizer, clip=clip, epochs=epochs, derivative=derivative, **kwargs)

  return OuterStep(make_step, checks=(outer_step.constant_schedule("which takes several steps a meta-step"),))


def along_life(inner: InnerLoop) -> OuterStep:
  """`rl.online`; the optimizer is "life"."""
  return outer_step.of(rl.online(inner), _check_one_life)


def _check_one_life(tables: outer_step.Tables, tasks_per_step: int) -> None:
  del tables
  if tasks_per_step != 1:
    raise ValueError(f"config.tasks_per_step must be 1 for online, which is one life; got {tasks_per_step}.")
