"""A Markov decision process so small that all of its episodes can be listed: two states, two actions, three steps."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import warpjax as wj
from warpjax import rl, rules
from warpjax.rl.advantages import discounted

HORIZON = 3
MOVES = np.array([[[0.9, 0.1], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4]]])  # [state, action, next state]
REWARDS = np.array([[1.0, -0.5], [0.2, 2.0]])  # [state, action]

ALL = [
  ((0, *states), actions)
  for states in itertools.product(range(2), repeat=HORIZON - 1)
  for actions in itertools.product(range(2), repeat=HORIZON)
]
STATES, ACTIONS = (np.array([pair[i] for pair in ALL]).T for i in range(2))  # [steps, episodes]
CHANCE = np.prod(MOVES[STATES[:-1], ACTIONS[:-1], STATES[1:]], axis=0)  # of the moves, given the actions


def policy():
  return rl.memoryless(lambda params, shared, states: jax.nn.one_hot(states, 2) @ params, rl.categorical())


def probabilities(params):
  """Of every episode, `[episodes]`."""
  log_pi = jax.nn.log_softmax(params)
  return CHANCE * jnp.exp(jnp.sum(log_pi[STATES, ACTIONS], axis=0))


def expected_loss(params, shared, batch, scale=1.0):
  """The exact expectation, per step, of the negative return; `scale` sets tasks apart."""
  value = -jnp.sum(probabilities(params) * scale * REWARDS[STATES, ACTIONS].sum(0)) / HORIZON
  return value, {"return": -value * HORIZON}


def listed(params, scale=1.0):
  """All episodes as one batch, each with its present probability as weight."""
  weights = jnp.broadcast_to(probabilities(params), STATES.shape)
  rewards = scale * REWARDS[STATES, ACTIONS]
  episodes = rl.Episodes(jnp.asarray(STATES), jnp.asarray(ACTIONS), jnp.asarray(rewards), weights)
  return rl.Batch(episodes, discounted(jnp.asarray(rewards), 1.0))


def exact_loop():
  """Adaptation by, and judgement by, the exact return."""
  query = lambda params, shared, scale: expected_loss(params, shared, (), scale)
  return wj.InnerLoop(query, rules.sgd(0.7), num_steps=2)


def listed_loop(estimator="dice"):
  """All episodes in every batch, so that nothing is random."""
  return wj.InnerLoop(
    rl.policy_gradient(policy(), estimator),
    rules.sgd(0.7),
    num_steps=2,
    batch_fn=lambda key, support, step, params, shared: listed(params, support),
    query_batch_fn=lambda key, task, params, shared: listed(params, task.query),
  )
