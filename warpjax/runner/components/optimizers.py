"""Outer optimizers of a config's `optimizer` table."""

from __future__ import annotations

from typing import Any, Literal

import optax

from warpjax.checks import check_counts
from warpjax.training import optimizers

Schedule = Literal["constant", "linear", "cosine"]


def sgd(
  num_meta_steps: int,
  learning_rate: float,
  schedule: Schedule = "constant",
  clip: float = 0.0,
  clip_norm: float = 0.0,
  shared_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  """SGD.

  Args:
    num_meta_steps: Meta-steps of the schedule.
    learning_rate: Step size.
    schedule: Schedule of the step size.
    clip: Bound of each element of the meta-gradient; 0 for none.
    clip_norm: Bound of the meta-gradient's norm over all blocks; 0 for none.
    shared_learning_rate: Step size of the shared parameters; 0 for the same.
  """
  _check(learning_rate, shared_learning_rate=shared_learning_rate, clip=clip, clip_norm=clip_norm)

  def sgd(rate: float) -> optax.GradientTransformation:
    return optax.sgd(_schedule(rate, schedule, num_meta_steps))

  blocks = optimizers.per_block(sgd(learning_rate), shared=sgd(shared_learning_rate or learning_rate))
  return _clipped(clip, clip_norm, blocks)


def adam(
  num_meta_steps: int,
  learning_rate: float,
  schedule: Schedule = "constant",
  clip: float = 0.0,
  clip_norm: float = 0.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  rule_learning_rate: float = 0.0,
  shared_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  """Adam.

  Args:
    num_meta_steps: Meta-steps of the schedule.
    learning_rate: Step size.
    schedule: Schedule of the step size.
    clip: Bound of each element of the meta-gradient; 0 for none.
    clip_norm: Bound of the meta-gradient's norm over all blocks; 0 for none.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the denominator.
    rule_learning_rate: Step size of the rule's parameters; 0 for the same.
    shared_learning_rate: Step size of the shared parameters; 0 for the same.
  """
  rates = {"rule_learning_rate": rule_learning_rate, "shared_learning_rate": shared_learning_rate}
  _check(learning_rate, **rates, clip=clip, clip_norm=clip_norm)

  def adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(_schedule(rate, schedule, num_meta_steps), b1, b2, eps)

  blocks = optimizers.per_block(
    adam(learning_rate),
    shared=adam(shared_learning_rate or learning_rate),
    rule=adam(rule_learning_rate or learning_rate),
  )
  return _clipped(clip, clip_norm, blocks)


def _check(learning_rate: float, **others: float) -> None:
  if learning_rate <= 0:
    raise ValueError(f"config.optimizer.learning_rate must be above 0; got {learning_rate}.")
  for name, value in others.items():
    if value < 0:
      raise ValueError(f"config.optimizer.{name} must be at least 0; got {value}.")


def _schedule(learning_rate: float, schedule: Schedule, num_meta_steps: int) -> Any:
  if schedule == "linear":
    return optax.linear_schedule(learning_rate, 0.0, num_meta_steps)
  return optax.cosine_decay_schedule(learning_rate, num_meta_steps) if schedule == "cosine" else learning_rate


def _clipped(clip: float, clip_norm: float, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """Bounds the meta-gradient before the optimizer; 0 is no bound."""
  elementwise = [optax.clip(clip)] if clip else []
  by_norm = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  return optax.chain(*elementwise, *by_norm, optimizer)  # no identities: checkpoints have the state of each part


def rule_adam(
  num_meta_steps: int, learning_rate: float, updates_per_step: int = 1, clip_norm: float = 0.0
) -> optax.GradientTransformation:
  """Adam for the rule's parameters alone, with a cosine schedule to zero.

  Args:
    num_meta_steps: Meta-steps of the schedule.
    learning_rate: Initial step size.
    updates_per_step: Outer updates of a meta-step.
    clip_norm: Bound of the meta-gradient's norm; 0 for none.
  """
  _check(learning_rate, clip_norm=clip_norm)
  check_counts(updates_per_step=updates_per_step)
  rate = optax.cosine_decay_schedule(learning_rate, num_meta_steps * updates_per_step)
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  return optimizers.per_block(optax.set_to_zero(), rule=optax.chain(*clip, optax.adam(rate)))


def one_block(
  num_meta_steps: int,
  learning_rate: float,
  block: Literal["initial", "shared", "rule"] = "shared",
  optimizer: Literal["adam", "sgd"] = "adam",
  momentum: float = 0.0,
  schedule: Schedule = "constant",
  clip: float = 0.0,
) -> optax.GradientTransformation:
  """For bilevel problems: updates one block of the meta-parameters, and leaves the others where they started.

  Args:
    num_meta_steps: Meta-steps of the schedule.
    learning_rate: Step size.
    block: The block.
    optimizer: Its optimizer.
    momentum: Momentum of "sgd".
    schedule: Schedule of the step size.
    clip: Bound of each element of the meta-gradient; 0 for none.
  """
  _check(learning_rate, momentum=momentum, clip=clip)
  if momentum and optimizer != "sgd":
    raise ValueError(f"config.optimizer.momentum must be 0 with the optimizer {optimizer!r}; got {momentum}.")
  rate = _schedule(learning_rate, schedule, num_meta_steps)
  own = optax.adam(rate) if optimizer == "adam" else optax.sgd(rate, momentum or None)
  return optimizers.per_block(optax.set_to_zero(), **{block: _clipped(clip, 0.0, own)})


def life(learning_rate: float) -> optax.GradientTransformation:
  """For `online`: the life continues from its last parameters, and shared parameters are trained by Adam.

  Args:
    learning_rate: Learning rate of Adam.
  """
  _check(learning_rate)
  return optimizers.per_block(initial=optax.sgd(1.0), shared=optax.adam(learning_rate))
