"""Sine regression, `y = A sin(w x + b)` for `x` in [-5, 5], as three papers draw it.

Their errors cannot be compared with each other: the tasks differ in phase, in frequency and in the query points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from warpjax.checks import check_choice, check_count
from warpjax.types import Task, TaskSampler

DOMAIN = (-5.0, 5.0)


class Variant(NamedTuple):
  """One paper's distribution of waves: bounds of uniform draws, and how the query is placed.

  Attributes:
    amplitude: Bounds of A.
    frequency: Bounds of w, in radians per unit of x.
    phase: Bounds of b, in radians.
    grid: Number of equally spaced query points; 0 for random ones, whose number is that of the shots.
  """

  amplitude: tuple[float, float] = (0.1, 5.0)
  frequency: tuple[float, float] = (1.0, 1.0)
  phase: tuple[float, float] = (0.0, math.pi)
  grid: int = 0


VARIANTS = {
  "maml": Variant(phase=(-math.pi, 0.0)),  # Finn et al. write A sin(x - phase)
  "meta_sgd": Variant(frequency=(0.8, 1.2)),
  "reptile": Variant(phase=(0.0, 2 * math.pi), grid=50),
}


class Wave(NamedTuple):
  """A sine wave, `A sin(w x + b)`.

  Attributes:
    amplitude: A, a scalar.
    frequency: w, a scalar.
    phase: b, a scalar.
  """

  amplitude: jax.Array
  frequency: jax.Array
  phase: jax.Array

  def __call__(self, x: jax.Array) -> jax.Array:
    """`A sin(w x + b)`."""
    return self.amplitude * jnp.sin(self.frequency * x + self.phase)


def wave(key: jax.Array, variant: str = "maml") -> Wave:
  """The wave of the task that `sampler(variant, ...)` draws from the same key, for oracles and plots.

  Args:
    key: The key of the task.
    variant: A row of `VARIANTS`.

  Returns:
    A `Wave`; call it on any `x`.

  Raises:
    ValueError: for an unknown variant.
  """
  row = _variant(variant)
  low, high = zip(row.amplitude, row.frequency, row.phase, strict=True)
  return Wave(*jax.random.uniform(jax.random.fold_in(key, 0), (3,), float, jnp.array(low), jnp.array(high)))


def sampler(variant: str = "maml", *, shots: int | None = 10, queries: int | None = None) -> TaskSampler:
  """Regression tasks: `y = A sin(w x + b)`, a new wave and new points for every key.

  Args:
    variant: `"maml"` (Finn et al.: w = 1, y = A sin(x - phase), phase in [0, pi]), `"meta_sgd"` (Li et al.: w in
      [0.8, 1.2], b in [0, pi]) or `"reptile"` (Nichol et al.: w = 1, b in [0, 2 pi], 50 equally spaced query points).
    shots: Random support points; `None` for the grid of the query, on which Reptile trains.
    queries: Query points; `None` for those of the paper: random ones, as many as shots, or Reptile's grid of 50.

  Returns:
    A sampler of `Task(support=(x, y), query=(x, y))`, x and y of shape `[points, 1]`, in the default float dtype.

  Raises:
    ValueError: for an unknown variant, counts below 1, or no shots if the query has no grid.

  Example:
    >>> import jax
    >>> task = sampler("maml", shots=5)(jax.random.key(0))
    >>> task.support[0].shape, task.query[1].shape
    ((5, 1), (5, 1))

  Reference:
    Finn, Abbeel, Levine 2017, arXiv 1703.03400, section 5.1; Li et al. 2017, arXiv 1707.09835, section 4.1;
    Nichol, Achiam, Schulman 2018, arXiv 1803.02999, section 4.
  """
  row = _variant(variant)
  if shots is None and not row.grid:
    raise ValueError(f"shots must be a number for variant {variant!r}: its query is random, so there is no grid to use")
  num_queries = queries if queries is not None else row.grid or shots or 0
  for name, count in (("shots", shots), ("queries", num_queries)):
    if count is not None:
      check_count(name, count)

  num_support, num_random = shots or 0, 0 if row.grid else num_queries

  def sample(key: jax.Array) -> Task:
    curve = wave(key, variant)
    points = jax.random.uniform(jax.random.fold_in(key, 1), (num_support + num_random, 1), float, *DOMAIN)
    grid = jnp.linspace(*DOMAIN, num_queries)[:, None]
    query = grid if row.grid else points[num_support:]
    support = grid if shots is None else points[:num_support]
    return Task((support, curve(support)), (query, curve(query)))

  return jax.tree_util.Partial(sample)


def _variant(name: str) -> Variant:
  check_choice("variant", name, VARIANTS)
  return VARIANTS[name]
