"""Settings of learned update rules and of how they are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import optax

from warpjax import meta_gradients, rules, training
from warpjax.runner import schema
from warpjax.runner.components.outer_step import OuterStep
from warpjax.training import compose, optimizers
from warpjax.types import CarriedMetaGrad, InnerLoop, Params, PyTree, UpdateRule


def kronecker(learning_rate: float) -> UpdateRule:
  """Meta-Curvature."""
  return rules.kronecker(learning_rate)


def meta_lstm(units: int = 20, p: float = 10.0) -> UpdateRule:
  """Ravi and Larochelle's rule."""
  return rules.meta_lstm(units, p)


def l2l_lstm(units: Sequence[int] = (20, 20), p: float = 5.0, scale: float = 0.01) -> UpdateRule:
  """Andrychowicz et al.'s rule; a `p` of 0 takes gradients as they are."""
  return rules.l2l_lstm(units, p=p or None, scale=scale)


def learned(
  learning_rate: float, momentum: float = 0.0, transform: Literal["sgd", "rmsprop", "adam"] = "sgd"
) -> UpdateRule:
  """An optax optimizer whose step size, by its logarithm, and momentum, Adam's `b1`, are meta-learned from these."""
  return rules.learned(
    TRANSFORMS[transform], positive=("learning_rate",), learning_rate=learning_rate, momentum=momentum
  )


def per_step_sgd(learning_rate: float, own_steps: int, per_step_norm: bool = False) -> UpdateRule:
  """MAML++'s step sizes, one for each tensor and each of `own_steps` steps.

  With `per_step_norm` the scales and offsets of normalisation do not adapt, and have values of their own for each step.
  """
  sizes = rules.per_step_sgd(learning_rate, own_steps)
  if not per_step_norm:
    return sizes
  values = rules.per_step_values(own_steps)
  return rules.chain(rules.masked(sizes, partial(_norms, are=False)), rules.masked(values, partial(_norms, are=True)))


def _norms(params: Params, are: bool) -> PyTree:
  """A mask of the parameters of modules that are named `norm*`, or of all others."""
  is_norm = lambda path, leaf: any(str(getattr(part, "key", "")).startswith("norm") for part in path)
  mask = jax.tree_util.tree_map_with_path(is_norm, params)
  if not any(jax.tree.leaves(mask)):
    raise ValueError(
      "config.inner.per_step_norm must be False where no normalisation is among the parameters that adapt, "
      "config.network.adapts; got True."
    )
  return jax.tree.map(lambda norm: norm is are, mask)


def unrolled(
  inner: InnerLoop,
  derivative: Literal["mixed", "reverse", "first_order"] = "mixed",
  truncate: int | None = None,
  memory: Literal["auto", "save_all", "save_gradients", "recompute"] = "auto",
  multi_step_epochs: int = 0,
  steps_per_epoch: int = 500,
  first_order_epochs: int = 0,
) -> Any:
  """Through the inner loop; MAML++ anneals the loss over `multi_step_epochs`, and the derivative's order at once."""
  schema.at_least_one("config.meta_gradient", steps_per_epoch=steps_per_epoch)
  weights = None
  if multi_step_epochs:
    weights = meta_gradients.annealed_step_weights(inner.num_steps, multi_step_epochs, steps_per_epoch)
  of_order = lambda order: meta_gradients.unrolled(inner, order, truncate=truncate, memory=memory, step_weights=weights)
  if not first_order_epochs:
    return of_order(derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    first, then = (training.meta_step(of_order(order), optimizer, **kwargs) for order in ("first_order", derivative))
    return compose.in_phases(first_order_epochs * steps_per_epoch, first, then)

  return OuterStep(make_step, of_order(derivative))


def truncated_unroll(
  inner: InnerLoop, length: int, derivative: Literal["mixed", "reverse", "first_order"] = "first_order"
) -> OuterStep:
  """L2L's training: an outer update for every `length` steps of the inner loop."""
  meta_grad: CarriedMetaGrad = meta_gradients.truncated_unroll(inner, length, derivative)

  def make_step(optimizer: optax.GradientTransformation, **kwargs: Any) -> Any:
    return compose.repeated(training.meta_step(meta_grad, optimizer, **kwargs), inner.num_steps // length)

  return OuterStep(make_step, meta_grad)


def rule_adam(
  num_meta_steps: int, learning_rate: float, updates_per_step: int = 1, clip_norm: float = 0.0
) -> optax.GradientTransformation:
  """Adam for the rule's parameters alone, its rate annealed to zero by a cosine; `clip_norm` of 0 is no bound."""
  schema.at_least_one("config.optimizer", updates_per_step=updates_per_step)
  rate = optax.cosine_decay_schedule(learning_rate, num_meta_steps * updates_per_step)
  clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
  return optimizers.per_block(optax.set_to_zero(), rule=optax.chain(*clip, optax.adam(rate)))


TRANSFORMS: dict[str, Callable[..., optax.GradientTransformation | UpdateRule]] = {
  "sgd": optax.sgd,
  "rmsprop": optax.rmsprop,
  "adam": lambda learning_rate, momentum: rules.adam(learning_rate, b1=momentum),
}
RULES: dict[str, Callable[..., UpdateRule]] = {
  "kronecker": kronecker,
  "l2l_lstm": l2l_lstm,
  "learned": learned,
  "meta_lstm": meta_lstm,
  "per_step_sgd": per_step_sgd,
}
