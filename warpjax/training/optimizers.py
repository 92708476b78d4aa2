"""Outer optimizers: one for each block of MetaParams, so that a block can be updated without the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from warpjax.types import MetaParams, PyTree


class BlockState(NamedTuple):
  """The state of `per_block`.

  Attributes:
    initial: The state of the optimizer of `initial`.
    shared: The state of the optimizer of `shared`.
    rule: The state of the optimizer of `rule`.
  """

  initial: PyTree
  shared: PyTree
  rule: PyTree


def per_block(
  default: optax.GradientTransformation | None = None,
  *,
  initial: optax.GradientTransformation | None = None,
  shared: optax.GradientTransformation | None = None,
  rule: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  """A separate optimizer for each block, with its own state and count.

  `update(..., blocks=("shared",))` updates only those blocks: the others keep their parameters and their state. With
  zero gradients momentum would move them, and schedules and Adam's averages would decay.

  Args:
    default: For the blocks that are not named.
    initial: For the `initial` block.
    shared: For the `shared` block; its learning rate over that of `initial` is the paper's `1 / lambda`.
    rule: For the `rule` block; that of `shared` if it is None and there is no default.

  Returns:
    An optax transformation over `MetaParams`; without `blocks` it updates all of them.

  Raises:
    ValueError: when a block has no optimizer, or one that is not an optax transformation.

  Example:
    >>> import jax.numpy as jnp
    >>> optimizer = per_block(initial=optax.sgd(0.1), shared=optax.adam(1e-3))
    >>> point = MetaParams(jnp.array(1.0), jnp.array(2.0))
    >>> updates, state = optimizer.update(point, optimizer.init(point), point, blocks=("initial",))
    >>> float(updates.initial), float(updates.shared)
    (-0.1, 0.0)

  Reference:
    Flennerhag et al. 2020, arXiv 1909.00025, equation 13 and algorithm 2.
  """
  parts = {"initial": initial or default, "shared": shared or default, "rule": rule or default or shared}
  for name, part in parts.items():
    if not (hasattr(part, "init") and hasattr(part, "update")):
      raise ValueError(f"{name} must be an optax.GradientTransformation, or there must be a default; got {part!r}")
  chosen = {name: optax.with_extra_args_support(part) for name, part in parts.items()}

  def init(meta_params: MetaParams) -> BlockState:
    return BlockState(**{name: part.init(getattr(meta_params, name)) for name, part in chosen.items()})

  def update(
    grads: MetaParams,
    state: BlockState,
    params: Any = None,
    *,
    blocks: Sequence[str] = MetaParams._fields,
    **extra: Any,
  ) -> tuple[MetaParams, BlockState]:
    updates, states = optax.tree.zeros_like(grads)._asdict(), state._asdict()
    for name in blocks:
      point = None if params is None else getattr(params, name)
      updates[name], states[name] = chosen[name].update(getattr(grads, name), states[name], point, **extra)
    return MetaParams(**updates), BlockState(**states)

  return optax.GradientTransformationExtraArgs(init, update)


def check_per_block(opt_state: PyTree) -> None:
  """Raises a ValueError unless the optimizer's state is that of `per_block`, except for chained clips and the like."""
  leaves = jax.tree.leaves(opt_state, is_leaf=lambda leaf: isinstance(leaf, BlockState))
  kinds = sorted({type(leaf).__name__ for leaf in leaves})
  if kinds != [BlockState.__name__]:
    raise ValueError(
      "the optimizer must be optimizers.per_block(...), which can update a block without the others, alone or chained "
      f"with stateless transformations; got one whose state holds {kinds or 'nothing'}"
    )
