"""WarpGrad's settings: warp-layers, its objectives online and offline, and the baselines that need no meta-gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from warpjax import meta_gradients, networks
from warpjax.meta_gradients import Contribution
from warpjax.runner.components import outer_step
from warpjax.runner.components.outer_step import OuterStep, Tables
from warpjax.runner.config import schema
from warpjax.tasks import continual
from warpjax.training import replay
from warpjax.types import Aux, InnerLoop

Objective = Literal["full", "first_order"]
Path = Literal["leap", "reptile", "none"]


def spec(table: Mapping[str, Any]) -> networks.WarpSpec | None:
  """The warp-layers of `config.network.warp`; None for an empty table or the kind "none".

  Raises:
    ValueError: For an unknown setting, or settings without the kind.
  """
  if table and "kind" not in table:
    raise ValueError(f"config.network.warp.kind must be set with other settings of warp-layers; got {dict(table)}.")
  return schema.call("config.network.warp", table, layers)


def layers(
  kind: Literal["none", "linear", "scale", "conv1x1", "conv3x3"] = "none",
  activation: Literal["none", "relu", "tanh"] = "none",
  batch_norm: bool = False,
  residual: bool = False,
  num_layers: int = 1,
  hidden_width: int = 0,
  identity_init: bool = False,
  head: bool = False,
) -> networks.WarpSpec | None:
  """The settings of warp-layers; see `networks.WarpSpec`.

  Args:
    kind: The kernel: dense, a factor for each channel, or a convolution.
    activation: The activation after the kernel.
    batch_norm: Whether a batch norm precedes the kernel and, with `residual`, follows the sum.
    residual: Whether the layer's input is added to its output.
    num_layers: Layers after each block.
    hidden_width: Width between these layers; 0 for that of the block.
    identity_init: Whether the layers start as the identity.
    head: Whether a linear warp-layer follows the head.
  """
  if kind == "none":
    return None
  function = None if activation == "none" else activation
  return networks.WarpSpec(
    kind, function, batch_norm, residual, num_layers, hidden_width or None, identity_init=identity_init, head=head
  )


def online(
  inner: InnerLoop,
  initial: Literal["maml", "leap", "reptile", "none"] = "leap",
  objective: Objective = "full",
  reduction: Literal["mean", "sum"] = "mean",
  seen_every: int = 0,
  leap_loss: bool = True,
  leap_all_segments: bool = True,
) -> Any:
  """WarpGrad's Algorithm 1.

  Args:
    inner: The inner loop.
    initial: The objective of the initial parameters.
    objective: The warp objective.
    reduction: Mean or sum of the objective over the points of a trajectory.
    seen_every: Inner steps of a sub-task, in continual learning.
    leap_loss: Whether Leap's paths include the loss; False in the released code.
    leap_all_segments: Whether Leap counts every segment of a path; False in the released code.
  """
  warp = meta_gradients.warp(objective, reduction=reduction)
  _check_of_leap(initial, leap_loss, leap_all_segments)
  if seen_every:
    warp = continual.query_at_step(warp, continual.seen_so_far(seen_every))
  checked = partial(_check_seen, seen_every)
  if initial == "maml":
    along: Any = meta_gradients.along_trajectory(inner, warp)
    return outer_step.of(meta_gradients.blockwise(initial=meta_gradients.unrolled(inner), shared=along), checked)
  first = [] if initial == "none" else [_path(initial, leap_loss, leap_all_segments)]
  return outer_step.of(meta_gradients.along_trajectory(inner, *first, warp), checked)


def _check_seen(seen_every: int, tables: Tables, tasks_per_step: int) -> None:
  del tasks_per_step
  if seen_every not in (0, steps_each := tables["data"].get("steps_each", 0)):
    raise ValueError(
      f"config.meta_gradient.seen_every must be 0 or config.data.steps_each, {steps_each}; got {seen_every}."
    )


def offline(
  inner: InnerLoop,
  initial: Path = "leap",
  leap_loss: bool = True,
  leap_all_segments: bool = True,
  objective: replay.ReplayObjective = "full",
  eta: int = 1,
  memory: replay.Memory = "device",
) -> OuterStep:
  """WarpGrad's Algorithm 2.

  Args:
    inner: The inner loop.
    initial: The objective of the initial parameters.
    leap_loss: Whether Leap's paths include the loss; False in the released code.
    leap_all_segments: Whether Leap counts every segment of a path; False in the released code.
    objective: The warp objective.
    eta: Outer updates from one buffer; 0 uses all of its points at once.
    memory: Where the buffer is stored.
  """
  _check_of_leap(initial, leap_loss, leap_all_segments)
  checked = outer_step.constant_schedule("whose blocks count other steps")
  first = None if initial == "none" else _path(initial, leap_loss, leap_all_segments)
  return OuterStep(
    partial(replay.meta_step, inner, objective=objective, eta=eta or None, initial=first, memory=memory),
    checks=(checked,),
  )


def untrained(inner: InnerLoop) -> Any:
  """A meta-gradient of zero, so that evaluation adapts from scratch."""
  nothing: Callable[..., tuple[Any, Aux]] = lambda problem, carry, final: (
    jax.tree.map(jnp.zeros_like, problem.meta_params),
    {},
  )
  return meta_gradients.along_trajectory(inner, Contribution(lambda problem: (), lambda p, carry, step: carry, nothing))


def _check_of_leap(initial: str, leap_loss: bool, leap_all_segments: bool) -> None:
  for name, value in {"leap_loss": leap_loss, "leap_all_segments": leap_all_segments}.items():
    if initial != "leap" and not value:
      raise ValueError(f"config.meta_gradient.{name} needs initial to be 'leap'; got {initial!r}.")


def _path(name: str, leap_loss: bool, leap_all_segments: bool) -> Contribution:
  if name == "reptile":
    return meta_gradients.reptile()
  return meta_gradients.leap(loss=leap_loss, all_segments=leap_all_segments)
