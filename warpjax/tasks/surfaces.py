"""Random surfaces over the plane, made from MATLAB's `peaks`, with minima that descent easily misses.

A task's parameters are the displacement from a start that belongs to the task, so that every task starts elsewhere
while `MetaParams.initial` stays zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax.checks import check_count
from warpjax.types import Aux, LossFn, Params, PyTree, Task, TaskSampler

DOMAIN = (-3.0, 3.0)


class Surface(NamedTuple):
  """The numbers of one surface.

  Attributes:
    a: Shifts, `[3]`, each -1, 0 or 1.
    b: Heights, `[3]`, each an integer from -5 to 5.
    s: An integer from 1 to 10, scalar.
  """

  a: Any
  b: Any
  s: Any


class Descent(NamedTuple):
  """The support set or the query set of one task.

  Attributes:
    start: The points that descents start from, `[num_starts, 2]`.
    surface: The surface to descend.
  """

  start: jax.Array
  surface: Surface


# MATLAB's own surface, of which the others are variations.
PEAKS = Surface(np.array([1.0, 1.0, 1.0]), np.array([3.0, 10.0, 1.0 / 3.0]), np.array(5.0))


def height(surface: Surface, x: jax.Array, *, literal: bool = False) -> jax.Array:
  """`b1 (a1-x1)^2 e^{-x1^2-(x2+a2)^2} - b2 (x1/s - x1^3 - x2^5) e^{-x1^2-x2^2} - b3 e^{-(x1+a3)^2-x2^2}`.

  Args:
    surface: Its numbers.
    x: `[..., 2]`.
    literal: Whether the last exponent is `-(x1+a3)^2 - x1^2`, as the paper prints it, instead of `peaks`'s.

  Returns:
    Heights, `[...]`.

  Example:
    >>> round(float(height(PEAKS, jnp.zeros(2))), 4)
    0.9810

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, appendix D.
  """
  (a1, a2, a3), (b1, b2, b3), s = surface
  x1, x2 = x[..., 0], x[..., 1]
  first = b1 * (a1 - x1) ** 2 * jnp.exp(-(x1**2) - (x2 + a2) ** 2)
  second = b2 * (x1 / s - x1**3 - x2**5) * jnp.exp(-(x1**2) - x2**2)
  return first - second - b3 * jnp.exp(-((x1 + a3) ** 2) - (x1 if literal else x2) ** 2)


def random_surface(key: jax.Array) -> Surface:
  """Each number uniform over its values: a from {-1, 0, 1}, b from {-5, ..., 5}, s from {1, ..., 10}.

  Args:
    key: The key of the draw.

  Returns:
    A `Surface`, of the default float dtype.
  """
  keys = jax.random.split(key, 3)
  draw = lambda i, shape, low, high: jax.random.randint(keys[i], shape, low, high + 1).astype(float)
  return Surface(draw(0, (3,), -1, 1), draw(1, (3,), -5, 5), draw(2, (), 1, 10))


def sampler(num_starts: int = 1) -> TaskSampler:
  """Random surfaces with random starts in [-3, 3]^2.

  Args:
    num_starts: Starts on each surface. A task has one descent from each, and its loss is their sum.

  Returns:
    A sampler of `Task(Descent, Descent)`, both the same; `start` is `[num_starts, 2]`.

  Raises:
    ValueError: when `num_starts` is below 1.

  Example:
    >>> task = sampler(10)(jax.random.key(0))
    >>> task.support.start.shape
    (10, 2)
  """
  check_count("num_starts", num_starts)

  def sample(key: jax.Array) -> Task:
    start = jax.random.uniform(jax.random.fold_in(key, 1), (num_starts, 2), float, *DOMAIN)
    descent = Descent(start, random_surface(jax.random.fold_in(key, 0)))
    return Task(descent, descent)

  return jax.tree_util.Partial(sample)


def loss(warp: Callable[[PyTree, jax.Array], jax.Array], *, literal: bool = False) -> LossFn:
  """`sum_i f(Omega(start_i + theta_i; phi))`: the gradient of each start's theta is that of its own height.

  Args:
    warp: `(shared, theta [num_starts, 2]) -> gamma`, such as `residual_warp`; `plain` for none.
    literal: As for `height`.

  Returns:
    A `LossFn` on batches `Descent`; params `[num_starts, 2]`; aux holds the mean `height`.

  Example:
    >>> task = sampler(3)(jax.random.key(0))
    >>> loss(plain)(jnp.zeros((3, 2)), (), task.support)[0].shape
    ()
  """

  def loss_fn(params: Params, shared: PyTree, batch: Descent) -> tuple[jax.Array, Aux]:
    heights = height(batch.surface, warp(shared, batch.start + params), literal=literal)
    return jnp.sum(heights), {"height": jnp.mean(heights)}

  return loss_fn


def plain(shared: PyTree, theta: jax.Array) -> jax.Array:
  """No warp."""
  del shared
  return theta


def residual_warp(shared: PyTree, theta: jax.Array) -> jax.Array:
  """`Omega(theta) = theta + W3 tanh(W2 tanh(W1 theta + b1) + b2) + b3`.

  With W3 = b3 = 0 it is the identity, so that a start is the same point in both spaces before meta-training; a random
  warp only reaches a part of the square.

  Args:
    shared: From `init_warp`.
    theta: `[..., 2]`.

  Returns:
    gamma, `[..., 2]`.
  """
  hidden = jnp.tanh(theta @ shared["w1"] + shared["b1"])
  hidden = jnp.tanh(hidden @ shared["w2"] + shared["b2"])
  return theta + hidden @ shared["w3"] + shared["b3"]


def init_warp(key: jax.Array, hidden: int = 30) -> PyTree:
  """Parameters of `residual_warp` at the identity.

  Args:
    key: The key of the draw.
    hidden: Width of its two layers.

  Returns:
    A dict of arrays.
  """
  first, second = jax.random.split(key)
  normal = jax.nn.initializers.lecun_normal()
  return {
    "w1": normal(first, (2, hidden), float),
    "b1": jnp.zeros(hidden),
    "w2": normal(second, (hidden, hidden), float),
    "b2": jnp.zeros(hidden),
    "w3": jnp.zeros((hidden, 2)),
    "b3": jnp.zeros(2),
  }
