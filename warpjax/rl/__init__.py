"""Reinforcement learning under the same estimators: environments, policies, episodes as batches, losses, TRPO, PPO."""

from warpjax.rl import advantages, environments, maze, navigation, objectives, policies, ppo, rollouts, trpo
from warpjax.rl.advantages import reinforce
from warpjax.rl.environments import Environment, HeldGoal
from warpjax.rl.objectives import a2c, policy_gradient
from warpjax.rl.online import online
from warpjax.rl.policies import Policy, categorical, gaussian, memoryless, recurrent
from warpjax.rl.rollouts import Batch, Episodes, batches, rollout

__all__ = [
  "Batch",
  "Environment",
  "Episodes",
  "HeldGoal",
  "Policy",
  "a2c",
  "advantages",
  "batches",
  "categorical",
  "environments",
  "gaussian",
  "maze",
  "memoryless",
  "navigation",
  "objectives",
  "online",
  "policies",
  "policy_gradient",
  "ppo",
  "recurrent",
  "reinforce",
  "rollout",
  "rollouts",
  "trpo",
]
