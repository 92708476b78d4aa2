"""Update rules of a config's `inner` table, and the inner loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import optax

import warpjax as wj
from warpjax import rules
from warpjax.checks import check_count, check_counts
from warpjax.types import BatchFn, InnerLoop, LossFn, Params, PyTree, UpdateRule


def loop(
  loss_fn: LossFn,
  rule: UpdateRule,
  num_steps: int,
  prox: float = 0.0,
  batch: Literal["full", "minibatch", "epochs"] = "full",
  batch_size: int = 0,
) -> InnerLoop:
  """The inner loop of a rule.

  Args:
    loss_fn: The loss.
    rule: The update rule.
    num_steps: Inner steps.
    prox: Weight of the proximal term.
    batch: The support examples of a step: "full" takes all, "minibatch" draws some, "epochs" takes each once in turn.
    batch_size: Support examples of a step, unless `batch` is "full".
  """
  check_counts(num_steps=num_steps)
  if prox < 0:
    raise ValueError(f"prox must be at least 0; got {prox}")
  if batch == "full" and not batch_size:
    return InnerLoop(loss_fn, rule, num_steps, prox=prox)
  return InnerLoop(loss_fn, rule, num_steps, batch_fn("config.inner.batch_size", batch, batch_size), prox)


def batch_fn(name: str, batch: str, size: int) -> BatchFn:
  """The batches of an inner step by the setting `inner.batch`, of the size in the setting `name`."""
  if batch == "full":
    raise ValueError(f"{name} needs inner.batch to be 'minibatch' or 'epochs'; got {size}.")
  check_count(name, size)
  return {"minibatch": wj.minibatch, "epochs": wj.epochs}[batch](size)


def sgd(
  learning_rate: float, momentum: float | None = None, nesterov: bool = False, later_learning_rate: float = 0.0
) -> UpdateRule:
  """SGD.

  Args:
    learning_rate: Step size.
    momentum: Momentum; None for none.
    nesterov: Whether the momentum is Nesterov's.
    later_learning_rate: Step size after the first step; 0 for the same.
  """
  if nesterov and not momentum:
    raise ValueError(f"config.inner.nesterov needs inner.momentum above 0; got {momentum}.")
  if not later_learning_rate:
    return rules.sgd(learning_rate, momentum, nesterov=nesterov)
  if min(learning_rate, later_learning_rate) <= 0:
    raise ValueError(f"config.inner.later_learning_rate must be above 0, as learning_rate; got {later_learning_rate}.")
  drop = optax.piecewise_constant_schedule(learning_rate, {1: later_learning_rate / learning_rate})
  return rules.sgd(drop, momentum, nesterov=nesterov)


TRANSFORMS: dict[str, Callable[..., optax.GradientTransformation | UpdateRule]] = {
  "sgd": optax.sgd,
  "rmsprop": optax.rmsprop,
  "adam": lambda learning_rate, momentum: rules.adam(learning_rate, b1=momentum),
}


def learned(
  learning_rate: float,
  momentum: float = 0.0,
  transform: Literal["sgd", "rmsprop", "adam"] = "sgd",
  learn_momentum: bool = True,
) -> UpdateRule:
  """An optax optimizer with meta-learned step size and momentum.

  Args:
    learning_rate: Initial step size, whose logarithm is learned.
    momentum: Initial momentum, Adam's `b1`.
    transform: The optimizer.
    learn_momentum: Whether the momentum is learned too.
  """
  learned_too = {"momentum": momentum} if learn_momentum else {}
  make = TRANSFORMS[transform] if learn_momentum else partial(TRANSFORMS[transform], momentum=momentum)
  return rules.learned(make, positive=("learning_rate",), learning_rate=learning_rate, **learned_too)


def per_step_sgd(learning_rate: float, own_steps: int, per_step_norm: bool = False) -> UpdateRule:
  """MAML++'s step sizes, one for each tensor and each step.

  Args:
    learning_rate: Initial step size.
    own_steps: Number of steps with step sizes of their own.
    per_step_norm: Whether the scales and offsets of normalisation have a value for each step instead of adapting.
  """
  check_counts(own_steps=own_steps)
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
