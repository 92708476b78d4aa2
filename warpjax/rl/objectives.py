"""Losses on episodes, whose derivatives are those of the expected return.

Adaptation differentiates such a loss once, the meta-gradient twice. A surrogate with the right first derivative may
have a wrong second one: the Hessian of the expected return has the terms `R d2 log p` and `R (d log p)(d log p)^T` of
an episode, and no derivative of `R log p` has the second term. DiCE's weights keep all of it. On the process of
`tests/rl/tabular.py`, whose episodes can all be listed, two steps of adaptation give a meta-gradient that is off by
0.74 of its norm with "score" (the surrogate of MAML's released code), by 0.18 with "ratio", and by rounding (1e-15)
with "dice".
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from warpjax.checks import check_choice
from warpjax.rl.advantages import discounted, gae
from warpjax.rl.policies import Policy
from warpjax.rl.rollouts import Batch, Episodes, masked_mean
from warpjax.types import Aux, LossFn, Params, PyTree

Estimator = Literal["score", "ratio", "dice"]


def dice_weights(log_probs: jax.Array, mask: jax.Array) -> jax.Array:
  """`m_t - m_{t-1}`, `m_t = exp(l_t - stop(l_t))`, `l_t` the log-probability of the actions up to t; 0 in value.

  Every derivative of `sum_t weights_t A_t` is an unbiased estimate of that of the expected return. With returns as
  advantages the sum telescopes to `sum_t (m_t - 1) r_t`, DiCE's objective.

  Args:
    log_probs: Log-probabilities of the actions, `[num_steps, num_episodes]`.
    mask: 0 where an episode has ended.

  Returns:
    `[num_steps, num_episodes]`.

  Reference:
    Foerster et al. 2018, arXiv 1802.05098, equation 5; with advantages Farquhar et al. 2019, arXiv 1909.10549.
  """
  present = jnp.where(mask > 0, log_probs, 0)
  past = jnp.cumsum(present, axis=0)
  before = past - present
  return jnp.exp(past - jax.lax.stop_gradient(past)) - jnp.exp(before - jax.lax.stop_gradient(before))


@dataclasses.dataclass(frozen=True)
class PolicyGradient:
  """A loss on `Batch`es, made by `policy_gradient`; it knows whose episodes they are."""

  policy: Policy
  estimator: Estimator

  def __call__(self, params: Params, shared: PyTree, batch: Batch) -> tuple[jax.Array, Aux]:
    """`-sum(w_t A_t) / number of steps`; aux holds `return`."""
    episodes = batch.episodes
    outputs = self.policy.sequence(params, shared, episodes.observations)
    log_probs = jnp.where(episodes.mask > 0, self.policy.distribution.log_prob(outputs.action, episodes.actions), 0)
    weights = self._weights(log_probs, episodes.mask)
    return -masked_mean(weights * batch.advantages, episodes.mask), {"return": episodes.mean_return()}

  def _weights(self, log_probs: jax.Array, mask: jax.Array) -> jax.Array:
    if self.estimator == "dice":
      return dice_weights(log_probs, mask)
    return ratio(log_probs) if self.estimator == "ratio" else log_probs


def policy_gradient(policy: Policy, estimator: Estimator = "score") -> PolicyGradient:
  """`-mean(w_t A_t)` over the steps of a batch; `estimator` chooses the weight `w_t` of an action.

  Args:
    policy: The policy, with the network of the learner.
    estimator: "score": `log pi(a_t)`, with only the right gradient, as in MAML's released code. "ratio":
      `pi / stop(pi)`, with the right gradient, and each action's part of the second derivative (low variance, biased).
      "dice": every derivative is right (`dice_weights`), at a higher variance.

  Returns:
    A loss on `Batch`es; aux holds `return`, the mean undiscounted return of the episodes.

  Raises:
    ValueError: for an unknown estimator.

  Example:
    >>> from warpjax.rl import gaussian, memoryless
    >>> policy_gradient(memoryless(lambda params, shared, seen: params, gaussian()), "dice").estimator
    'dice'

  Reference:
    Finn et al. 2017, arXiv 1703.03400, equation 4; the ratio: Rothfuss et al. 2018, arXiv 1810.06784, equation 12.
  """
  check_choice("estimator", estimator, Estimator)
  return PolicyGradient(policy, estimator)


def ratio(log_probs: jax.Array) -> jax.Array:
  """`pi / stop(pi)`: 1, with the derivatives of the probability over the probability."""
  return jnp.exp(log_probs - jax.lax.stop_gradient(log_probs))


def a2c(
  policy: Policy,
  discount: float = 0.9,
  *,
  trace: float = 1.0,
  value_cost: float = 0.1,
  concentration_cost: float = 0.03,
) -> LossFn:
  """Advantage actor-critic on whole episodes.

  `mean [-log pi(a_t) stop(A_t) + value_cost (R_t - v_t)^2 + concentration_cost sum_a pi(a)^2]` over steps and episodes

  Args:
    policy: Over discrete actions, with a critic.
    discount: In [0, 1].
    trace: Trace parameter of the advantages, see `gae`; 1 is `R_t - v_t`, as in the released codes.
    value_cost: Weight of the critic's squared error.
    concentration_cost: Weight of the policy's concentration, which those codes have instead of entropy.

  Returns:
    A loss on `Episodes`; aux holds `return`.

  Raises:
    ValueError: when `discount` or `trace` is outside [0, 1].

  Example:
    >>> from warpjax import rl
    >>> idle = lambda params, shared, seen: (jnp.zeros(1), jnp.zeros((1, 2)), jnp.zeros(1))  # one episode, two actions
    >>> ones = jnp.ones((2, 1))
    >>> episodes = rl.Episodes(jnp.zeros((2, 1, 3)), jnp.zeros((2, 1), jnp.int32), ones, ones)
    >>> loss, aux = a2c(rl.recurrent(idle, rl.categorical()))((), (), episodes)
    >>> round(float(loss), 3), float(aux["return"])
    (1.251, 2.0)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, section 4.3, released code, after Miconi et al. 2019.
  """
  if not 0 <= discount <= 1 or not 0 <= trace <= 1:
    raise ValueError(f"discount and trace must be in [0, 1]; got {discount!r} and {trace!r}")

  def loss_fn(params: Params, shared: PyTree, episodes: Episodes) -> tuple[jax.Array, Aux]:
    outputs = policy.sequence(params, shared, episodes.observations)
    returns = discounted(episodes.rewards, discount)
    advantages = jax.lax.stop_gradient(gae(episodes.rewards, outputs.value * episodes.mask, discount, trace))
    actor = -policy.distribution.log_prob(outputs.action, episodes.actions) * advantages
    critic = jnp.square(returns - outputs.value)
    concentration = jnp.sum(jnp.square(jax.nn.softmax(outputs.action)), axis=-1)
    cost = actor + value_cost * critic + concentration_cost * concentration
    return masked_mean(cost, episodes.mask), {"return": episodes.mean_return()}

  return loss_fn
