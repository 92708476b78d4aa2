"""Advantages of actions: discounted returns less a baseline. Arrays are `[num_steps, num_episodes]`."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from warpjax.rl.rollouts import Episodes, Rate, masked_mean


def discounted(rewards: jax.Array, discount: float) -> jax.Array:
  """`R_t = r_t + discount * R_{t+1}` along the first axis.

  Example:
    >>> discounted(jnp.array([1.0, 1.0, 2.0]), 0.5).tolist()
    [2.0, 2.0, 2.0]
  """

  def back(following: jax.Array, reward: jax.Array) -> tuple[jax.Array, jax.Array]:
    total = reward + discount * following
    return total, total

  return jax.lax.scan(back, jnp.zeros_like(rewards[0]), rewards, reverse=True)[1]


def gae(
  rewards: jax.Array, values: jax.Array, discount: float, trace: float, last: jax.Array | None = None
) -> jax.Array:
  """Generalised advantages, `A_t = sum_k (discount * trace)^k (r_{t+k} + discount v_{t+k+1} - v_{t+k})`.

  With `trace=1` they are `R_t - v_t`.

  Args:
    rewards: `[num_steps, ...]`.
    values: The critic's, `[num_steps, ...]`.
    discount: In [0, 1].
    trace: In [0, 1].
    last: The value after the last step, `[...]`; None for 0, the end of the episode.

  Returns:
    `[num_steps, ...]`.

  Example:
    >>> gae(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.5]), 0.5, 1.0).tolist()
    [1.5, 1.5]

  Reference:
    Schulman et al. 2016, arXiv 1506.02438, equation 16.
  """
  end = jnp.zeros_like(values[0]) if last is None else last
  following = jnp.concatenate([values[1:], end[None]])
  return discounted(rewards + discount * following - values, discount * trace)


def linear_baseline(episodes: Episodes, returns: jax.Array, ridge: float | jax.Array = 1e-5) -> jax.Array:
  """The least-squares fit of returns by `[o, o^2, t/100, (t/100)^2, (t/100)^3, 1]`, on these episodes.

  Args:
    episodes: The episodes to fit on; masked steps do not count.
    returns: The returns to fit.
    ridge: Added to the diagonal of the normal equations. It is raised to 2 eps times their trace, which collinear
      features need, such as one-hot observations and their squares.

  Returns:
    The fit at every step.

  Reference:
    Duan et al. 2016, arXiv 1604.06778; MAML's released code fits one for each task and inner step.
  """
  observations = episodes.observations
  time = jnp.broadcast_to(jnp.arange(returns.shape[0])[:, None] / 100.0, returns.shape)[..., None].astype(returns.dtype)
  features = jnp.concatenate([observations, observations**2, time, time**2, time**3, jnp.ones_like(time)], axis=-1)
  weighted = features * episodes.mask[..., None]
  gram = jnp.einsum("tei,tej->ij", weighted, features)
  ridge = jnp.maximum(ridge, 2 * jnp.finfo(gram.dtype).eps * jnp.trace(gram))
  gram = gram + ridge * jnp.eye(features.shape[-1], dtype=gram.dtype)
  weights = jax.scipy.linalg.solve(gram, jnp.einsum("tei,te->i", weighted, returns), assume_a="pos")
  return features @ weights


def standardized(advantages: jax.Array, mask: jax.Array) -> jax.Array:
  """Advantages with mean 0 and deviation 1 over the steps of the mask; 0 elsewhere."""
  centred = jnp.where(mask > 0, advantages - masked_mean(advantages, mask), 0) * mask
  return centred / (jnp.sqrt(masked_mean(jnp.square(centred), mask)) + 1e-8)


def reinforce(discount: float = 0.99, *, standardize: bool = True) -> Rate:
  """Discounted returns less the linear baseline, standardized over the batch as in MAML's released code.

  Args:
    discount: In [0, 1].
    standardize: Whether advantages get mean 0 and deviation 1, so that the inner step size does not depend on the
      scale of the rewards.

  Returns:
    `(episodes) -> advantages`.

  Raises:
    ValueError: when the discount is outside [0, 1].

  Example:
    >>> ones = jnp.ones((1, 2))  # one step, two episodes
    >>> episodes = Episodes(observations=jnp.zeros((1, 2, 3)), actions=ones, rewards=jnp.array([[0.0, 4.0]]), mask=ones)
    >>> reinforce()(episodes).round(2).tolist()
    [[-1.0, 1.0]]
  """
  if not 0 <= discount <= 1:
    raise ValueError(f"discount must be in [0, 1]; got {discount!r}")

  def rate(episodes: Episodes) -> jax.Array:
    returns = discounted(episodes.rewards, discount)
    advantages = (returns - linear_baseline(episodes, returns)) * episodes.mask
    return standardized(advantages, episodes.mask) if standardize else advantages

  return rate
