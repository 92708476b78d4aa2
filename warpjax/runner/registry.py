"""From a config's tables to the objects of warpjax: the only place where a string becomes an object.

Each table of a config names a function here and holds its arguments, so the signatures below are the settings there
are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import optax

import warpjax as wj
from warpjax import losses, meta_gradients, networks, rules
from warpjax.meta_gradients.redrawn import Draw
from warpjax.runner import schema
from warpjax.runner.components import estimators, learned_rules, learners
from warpjax.runner.components import warp as warp_settings
from warpjax.runner.families import base, image_data, multi_shot, optimizees, reinforcement, synthetic
from warpjax.training import optimizers
from warpjax.types import InnerLoop, LossFn, UpdateRule

Table = Mapping[str, Any]


def named(name: str, tables: Mapping[str, Table], also: Sequence[str] = (), **given: Any) -> Any:
  """Calls the function that the table `name` names, with the rest of the table and `given` as arguments.

  `also` are keys that another reader of the table took.

  Raises:
    ValueError: For a name that there is not, or an argument that `schema.call` refuses.
  """
  where = f"config.{name}"
  rest = {key: value for key, value in tables[name].items() if key != "name"}
  function = schema.choose(f"{where}.name", tables[name].get("name"), OPTIONS[name])
  return schema.call(where, rest, function, also=("name", *also), **given)


def meta_gradient(tables: Mapping[str, Table], inner: InnerLoop) -> Any:
  """What `config.meta_gradient` names, and what each task draws for itself."""
  table = dict(tables["meta_gradient"])
  mine = {"redrawn": table.pop("redrawn")} if "redrawn" in table else {}
  made = named("meta_gradient", {"meta_gradient": table}, also=("redrawn",), inner=inner)
  return schema.call("config.meta_gradient", mine, estimators.redrawn, made=made)


def draw(table: Table) -> Draw | None:
  """What each task draws for itself, those of the test too; None for nothing."""
  return estimators.DRAWS[table.get("redrawn", "nothing")]


def inner(table: Table, loss_fn: LossFn) -> InnerLoop:
  """The inner loop of `config.inner`, which holds the arguments of the loop and those of its rule."""
  loop_keys = [key for key in inspect.signature(_loop).parameters if key not in ("loss_fn", "rule")]
  mine = {key: value for key, value in table.items() if key in loop_keys}
  rest = {key: value for key, value in table.items() if key not in loop_keys and key != "rule"}
  make_rule = schema.choose("config.inner.rule", table.get("rule"), OPTIONS["rule"])
  rule = schema.call("config.inner", rest, make_rule, also=("rule", *loop_keys))
  return schema.call("config.inner", mine, _loop, loss_fn=loss_fn, rule=rule)


def has_schedule(optimizer: Table) -> bool:
  """Whether the learning rate of `config.optimizer` depends on the number of meta-steps."""
  parameters = inspect.signature(OPTIONS["optimizer"][optimizer["name"]]).parameters
  if "num_meta_steps" not in parameters:
    return False
  return "schedule" not in parameters or optimizer.get("schedule") not in (None, "constant")


def readers(name: str, table: Table) -> list[Callable[..., Any]]:
  """The functions whose arguments a table of a config holds; none for a name that there is not."""
  kind, key = ("rule", "rule") if name == "inner" else (name, "name")
  others: dict[str, list[Callable[..., Any]]] = {"inner": [_loop], "meta_gradient": [estimators.redrawn]}
  options = OPTIONS.get(kind, {})
  return [*([options[table[key]]] if table.get(key) in options else []), *others.get(name, [])]


def loss(metric: str, network: networks.Network) -> LossFn:
  """The loss whose aux has that metric."""
  return LOSSES[metric](network.apply)


def _loop(
  loss_fn: LossFn,
  rule: UpdateRule,
  num_steps: int,
  prox: float = 0.0,
  batch: Literal["full", "minibatch", "epochs"] = "full",
  batch_size: int = 0,
) -> InnerLoop:
  schema.at_least_one("config.inner", num_steps=num_steps)
  if batch == "full":
    if batch_size:
      raise ValueError(f"config.inner.batch_size needs inner.batch to be 'minibatch' or 'epochs'; got {batch_size}.")
    return InnerLoop(loss_fn, rule, num_steps, prox=prox)
  schema.at_least_one("config.inner", batch_size=batch_size)
  return InnerLoop(loss_fn, rule, num_steps, {"minibatch": wj.minibatch, "epochs": wj.epochs}[batch](batch_size), prox)


def _sgd(
  learning_rate: float, momentum: float | None = None, nesterov: bool = False, later_learning_rate: float = 0.0
) -> UpdateRule:
  """`later_learning_rate` is that of the steps after the first; 0 for the same."""
  if nesterov and not momentum:
    raise ValueError(f"config.inner.nesterov needs inner.momentum above 0; got {momentum}.")
  if not later_learning_rate:
    return rules.sgd(learning_rate, momentum, nesterov=nesterov)
  if min(learning_rate, later_learning_rate) <= 0:
    raise ValueError(f"config.inner.later_learning_rate must be above 0, as learning_rate; got {later_learning_rate}.")
  drop = optax.piecewise_constant_schedule(learning_rate, {1: later_learning_rate / learning_rate})
  return rules.sgd(drop, momentum, nesterov=nesterov)


def _adam(
  learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 1e-8
) -> UpdateRule:
  return rules.adam(learning_rate, b1, b2, eps, eps_root)


def _meta_sgd(learning_rate: float | tuple[float, ...] = (0.005, 0.1)) -> UpdateRule:
  # Where the row has bounds, the command line reads a number as a tuple of one.
  bounds: Any = learning_rate
  return rules.meta_sgd(bounds[0] if isinstance(bounds, tuple | list) and len(bounds) == 1 else bounds)


def _newton_cg(cg_steps: int = 5, damping: float = 0.0) -> UpdateRule:
  return rules.newton_cg(cg_steps, damping=damping)


def _reptile(
  inner: InnerLoop, carry_optimizer: bool = False, step_weights: Sequence[float] = (), in_turn: bool = False
) -> Any:
  """With `in_turn`, the released code's one optimizer state passes through the tasks of a meta-step."""
  if in_turn and not carry_optimizer:
    raise ValueError("config.meta_gradient.in_turn needs meta_gradient.carry_optimizer to be True; got False.")
  contribution = meta_gradients.reptile(step_weights or None)
  return meta_gradients.along_trajectory(inner, contribution, carry_optimizer="in_turn" if in_turn else carry_optimizer)


def _leap(
  inner: InnerLoop, norm: bool = True, loss: bool = True, stabilizer: bool = True, all_segments: bool = True
) -> Any:
  contribution = meta_gradients.leap(norm=norm, loss=loss, stabilizer=stabilizer, all_segments=all_segments)
  return meta_gradients.along_trajectory(inner, contribution)


Schedule = Literal["constant", "linear", "cosine"]


def _outer_sgd(
  num_meta_steps: int,
  learning_rate: float,
  schedule: Schedule = "constant",
  clip: float = 0.0,
  clip_norm: float = 0.0,
  shared_learning_rate: float = 0.0,
) -> optax.GradientTransformation:
  def sgd(rate: float) -> optax.GradientTransformation:
    return optax.sgd(_schedule(rate, schedule, num_meta_steps))

  blocks = optimizers.per_block(sgd(learning_rate), shared=sgd(shared_learning_rate or learning_rate))
  return _clipped(clip, clip_norm, blocks)


def _outer_adam(
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
  def adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(_schedule(rate, schedule, num_meta_steps), b1, b2, eps)

  blocks = optimizers.per_block(
    adam(learning_rate),
    shared=adam(shared_learning_rate or learning_rate),
    rule=adam(rule_learning_rate or learning_rate),
  )
  return _clipped(clip, clip_norm, blocks)


def _schedule(learning_rate: float, schedule: Schedule, num_meta_steps: int) -> Any:
  if learning_rate <= 0:
    raise ValueError(f"config.optimizer.learning_rate must be above 0; got {learning_rate}.")
  if schedule == "linear":
    return optax.linear_schedule(learning_rate, 0.0, num_meta_steps)
  return optax.cosine_decay_schedule(learning_rate, num_meta_steps) if schedule == "cosine" else learning_rate


def _clipped(clip: float, clip_norm: float, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
  """`clip` bounds each element of the meta-gradient, `clip_norm` its norm over all blocks; 0 is no bound."""
  for name, bound in (("clip", clip), ("clip_norm", clip_norm)):
    if bound < 0:
      raise ValueError(f"config.optimizer.{name} must be at least 0; got {bound}.")
  bounds = [optax.clip(clip)] * bool(clip) + [optax.clip_by_global_norm(clip_norm)] * bool(clip_norm)
  return optax.chain(*bounds, optimizer)


LOSSES: dict[str, Callable[..., LossFn]] = {
  "accuracy": losses.classification,
  "mse": losses.regression,
  "height": synthetic.surface_loss,
  "loss": optimizees.loss,
  "return": reinforcement.policy_loss,
}
OPTIONS: dict[str, dict[str, Callable[..., Any]]] = {
  "data": {
    "sinusoid": base.sinusoid,
    "omniglot": base.omniglot,
    "multi_shot_omniglot": multi_shot.omniglot,
    "continual": synthetic.continual,
    "surfaces": synthetic.surfaces,
    "quadratics": optimizees.quadratics,
    "trainings": optimizees.trainings,
    "navigation": reinforcement.navigation,
    "maze": reinforcement.maze,
    **image_data.SETS,
  },
  "network": learners.NETWORKS,
  "rule": {"sgd": _sgd, "adam": _adam, "meta_sgd": _meta_sgd, "newton_cg": _newton_cg, **learned_rules.RULES},
  "meta_gradient": {
    "unrolled": learned_rules.unrolled,
    "truncated_unroll": learned_rules.truncated_unroll,
    "reptile": _reptile,
    "leap": _leap,
    "implicit": estimators.implicit,
    "one_step": estimators.one_step,
    "forward_gradient": estimators.forward_gradient,
    "evolution_strategies": estimators.evolution_strategies,
    "warp": warp_settings.online,
    "warp_offline": warp_settings.offline,
    "multi_head": multi_shot.multi_head,
    "untrained": warp_settings.untrained,
    "trpo": reinforcement.trust_region,
    "ppo": reinforcement.proximal,
    "online": reinforcement.along_life,
  },
  "optimizer": {
    "sgd": _outer_sgd,
    "adam": _outer_adam,
    "rule_adam": learned_rules.rule_adam,
    "none": reinforcement.no_optimizer,
    "life": reinforcement.life,
  },
}
