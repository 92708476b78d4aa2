"""Reptile: move the initial parameters towards the adapted ones."""

from __future__ import annotations

import optax

from warpjax.meta_gradients.trajectory import Contribution, zeros


def reptile() -> Contribution:
  """`initial - final`, divided by nothing: an outer SGD of rate epsilon is Reptile's interpolation.

  Returns:
    A contribution to the `initial` block.

  Example:
    >>> isinstance(reptile(), Contribution)
    True

  Reference:
    Nichol, Achiam, Schulman 2018, arXiv 1803.02999, algorithms 1 and 2.
  """
  return Contribution(
    init=lambda problem: (),
    step=lambda problem, carry, step: carry,
    finish=lambda problem, carry, final: (
      zeros(problem, initial=optax.tree.sub(problem.meta_params.initial, final.params)),
      {},
    ),
  )
