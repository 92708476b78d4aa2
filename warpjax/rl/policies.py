"""Policies: a network that reads observations, and a distribution whose parameters it outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.types import Apply, Params, PyTree


class Distribution(NamedTuple):
  """Distributions over actions, by their parameters `p` of leading axes `[...]`.

  Attributes:
    noise: `(key, shape, p) -> noise [*shape, ...]`: the random numbers of all actions, drawn before the loop.
    sample: `(p, noise) -> actions [...]`.
    log_prob: `(p, actions) -> [...]`.
    kl: `(p, q) -> [...]`, the divergence of q from p.
  """

  noise: Callable[[jax.Array, tuple[int, ...], PyTree], PyTree]
  sample: Callable[[PyTree, PyTree], jax.Array]
  log_prob: Callable[[PyTree, jax.Array], jax.Array]
  kl: Callable[[PyTree, PyTree], jax.Array]


class Outputs(NamedTuple):
  """The outputs of a policy for observations.

  Attributes:
    action: The parameters of the distribution over actions.
    value: The critic's values, `[...]`; None without a critic.
  """

  action: PyTree
  value: Any = None


class Policy(NamedTuple):
  """A policy. The leading axis is that of the episodes; a policy without memory carries `()`.

  Attributes:
    distribution: The distribution of its actions.
    start: `(params, shared, observations [episodes, ...]) -> memory` at the start of an episode.
    step: `(params, shared, memory, observations [episodes, ...]) -> (memory, Outputs)`.
    sequence: `(params, shared, observations [steps, episodes, ...]) -> Outputs` of all steps, from the start.
  """

  distribution: Distribution
  start: Callable[[Params, PyTree, jax.Array], PyTree]
  step: Callable[[Params, PyTree, PyTree, jax.Array], tuple[PyTree, Outputs]]
  sequence: Callable[[Params, PyTree, jax.Array], Outputs]


def memoryless(apply: Apply, distribution: Distribution) -> Policy:
  """A policy that only sees the present observation.

  Args:
    apply: `(params, shared, observations [..., n]) -> p`, the distribution's parameters.
    distribution: For example `gaussian()`.

  Returns:
    A `Policy` without critic.

  Example:
    >>> policy = memoryless(lambda params, shared, seen: (seen @ params, 0 * seen), gaussian())
    >>> mean, log_std = policy.sequence(2 * jnp.eye(2), (), jnp.ones((5, 3, 2))).action
    >>> mean.shape, mean[0, 0].tolist()
    ((5, 3, 2), [2.0, 2.0])
  """

  def step(params: Params, shared: PyTree, memory: PyTree, observations: jax.Array) -> tuple[PyTree, Outputs]:
    return memory, Outputs(apply(params, shared, observations))

  def sequence(params: Params, shared: PyTree, observations: jax.Array) -> Outputs:
    return Outputs(apply(params, shared, observations))

  return Policy(distribution, lambda params, shared, observations: (), step, sequence)


def recurrent(apply: Callable[..., Any], distribution: Distribution) -> Policy:
  """A policy with memory, which starts at zero, and a critic.

  Args:
    apply: `(params, shared, (memory, observations [episodes, ...])) -> (memory, p, values)`; with None for the memory,
      from its start.
    distribution: For example `categorical()`.

  Returns:
    A `Policy`.

  Example:
    >>> def count(params, shared, seen):
    ...   memory, observations = seen
    ...   memory = 1 + (jnp.zeros(len(observations)) if memory is None else memory)
    ...   return memory, jnp.zeros((len(observations), 4)), memory
    >>> recurrent(count, categorical()).sequence((), (), jnp.zeros((3, 1, 2))).value.tolist()
    [[1.0], [2.0], [3.0]]
  """

  def start(params: Params, shared: PyTree, observations: jax.Array) -> PyTree:
    memory = jax.eval_shape(apply, params, shared, (None, observations))[0]
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), memory)

  def step(params: Params, shared: PyTree, memory: PyTree, observations: jax.Array) -> tuple[PyTree, Outputs]:
    memory, action, value = apply(params, shared, (memory, observations))
    return memory, Outputs(action, value)

  def sequence(params: Params, shared: PyTree, observations: jax.Array) -> Outputs:
    # Only the memories are kept for the derivative: recomputing a step costs less than storing its residuals.
    again = jax.checkpoint(lambda carry, seen: step(params, shared, carry, seen), prevent_cse=False)
    return jax.lax.scan(again, start(params, shared, observations[0]), observations)[1]

  return Policy(distribution, start, step, sequence)


def gaussian() -> Distribution:
  """Independent normal coordinates; `p = (mean [..., n], log_std [..., n])`.

  Example:
    >>> p = jnp.zeros(2), jnp.zeros(2)
    >>> float(gaussian().log_prob(p, jnp.zeros(2))), float(gaussian().kl(p, p))
    (-1.8378, 0.0)
  """

  def noise(key: jax.Array, shape: tuple[int, ...], p: PyTree) -> jax.Array:
    return jax.random.normal(key, (*shape, p[0].shape[-1]), p[0].dtype)

  def sample(p: PyTree, noise: jax.Array) -> jax.Array:
    return p[0] + jnp.exp(p[1]) * noise

  def log_prob(p: PyTree, actions: jax.Array) -> jax.Array:
    scaled = (actions - p[0]) * jnp.exp(-p[1])
    return -jnp.sum(0.5 * jnp.square(scaled) + p[1] + 0.5 * np.log(2 * np.pi), axis=-1)

  def kl(p: PyTree, q: PyTree) -> jax.Array:
    spread = jnp.exp(2 * (p[1] - q[1])) + jnp.square((p[0] - q[0]) * jnp.exp(-q[1]))
    return jnp.sum(0.5 * (spread - 1) + q[1] - p[1], axis=-1)

  return Distribution(noise, sample, log_prob, kl)


def categorical() -> Distribution:
  """One of n; `p = logits [..., n]`.

  Example:
    >>> float(categorical().log_prob(jnp.zeros(4), jnp.array(1)))
    -1.3863
  """

  def noise(key: jax.Array, shape: tuple[int, ...], p: PyTree) -> jax.Array:
    return jax.random.gumbel(key, (*shape, p.shape[-1]), p.dtype)

  def log_prob(p: PyTree, actions: jax.Array) -> jax.Array:
    return jnp.take_along_axis(jax.nn.log_softmax(p), actions[..., None], axis=-1)[..., 0]

  def kl(p: PyTree, q: PyTree) -> jax.Array:
    log_p = jax.nn.log_softmax(p)
    possible = jnp.exp(log_p) > 0  # an impossible action contributes nothing, and -inf less -inf would be NaN
    return jnp.sum(jnp.exp(log_p) * jnp.where(possible, log_p - jax.nn.log_softmax(q), 0), axis=-1)

  return Distribution(noise, lambda p, noise: jnp.argmax(p + noise, axis=-1), log_prob, kl)
