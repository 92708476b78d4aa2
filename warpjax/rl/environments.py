"""Environments: two methods, as in gymnax, whose `params` are the task and stay the same over episodes."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from warpjax.types import PyTree

Step = tuple[jax.Array, PyTree, jax.Array, jax.Array, dict[str, Any]]
"""`(observation, state, reward, terminated, info)`."""


class Environment(Protocol):
  """One environment, for one episode; rollouts vmap it. gymnax's environments have these methods too."""

  def reset_env(self, key: jax.Array, params: PyTree) -> tuple[jax.Array, PyTree]:
    """The first observation of an episode of the task `params`, and the state."""

  def step_env(self, key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> Step:
    """One step, without automatic reset."""


class HeldGoal(NamedTuple):
  """A gymnax environment whose task is its goal, which replaces the drawn one; no episode ends early.

  gymnax draws the goal in `reset` and keeps it in the state, so its own automatic reset changes the task. The goal must
  not be part of the observation.

  Attributes:
    env: For example of `gymnax.make("MetaMaze-misc")`.
    params: Its parameters, the same for every task.
  """

  env: Any
  params: Any

  def reset_env(self, key: jax.Array, goal: jax.Array) -> tuple[jax.Array, PyTree]:
    """An episode towards `goal`."""
    observation, state = self.env.reset_env(key, self.params)
    return observation, state.replace(goal=goal)

  def step_env(self, key: jax.Array, state: PyTree, action: jax.Array, goal: jax.Array) -> Step:
    """gymnax's step; `terminated` stays False, as a re-placement onto the goal would end the episode."""
    observation, state, reward, terminated, info = self.env.step_env(key, state, action, self.params)
    return observation, state.replace(goal=goal), reward, jnp.zeros_like(terminated), info
