"""From the names in a config to the functions of this package and of users: the only place where a string becomes one.

Each table of a config names a function and holds its arguments, so the signatures are the settings there are. A name is
one of `TABLES`, or `module:function`, which Python's path or the folder of the config must have.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warpjax import losses
from warpjax.meta_gradients.redrawn import Draw
from warpjax.runner.components import learners, meta_gradients, optimizers, rules, warp
from warpjax.runner.config import schema
from warpjax.runner.families import base, image_data, multi_shot, optimizees, reinforcement, synthetic
from warpjax.types import InnerLoop, LossFn

Table = Mapping[str, Any]

KINDS = ("data", "network", "inner", "meta_gradient", "optimizer")
"""The tables of a config that name a function."""

KEY = {**dict.fromkeys(KINDS, "name"), "inner": "rule"}
"""The setting that names it."""

GIVEN: dict[str, tuple[str, ...]] = {
  "data": ("data_dir", "cache_dir"),
  "network": ("num_outputs",),
  "inner": ("loss_fn", "rule"),
  "meta_gradient": ("inner", "made"),
  "optimizer": ("num_meta_steps",),
}
"""Arguments that are no settings."""

LOSSES: dict[str, Callable[..., LossFn]] = {
  "accuracy": losses.classification,
  "mse": losses.regression,
  "height": synthetic.surface_loss,
  "loss": optimizees.loss,
  "return": reinforcement.policy_loss,
}
"""By the metric of the data, where the config names no loss."""

TABLES: dict[str, dict[str, Callable[..., Any]]] = {
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
  "inner": {
    "sgd": rules.sgd,
    "adam": rules.adam,
    "meta_sgd": rules.meta_sgd,
    "newton_cg": rules.newton_cg,
    "kronecker": rules.kronecker,
    "l2l_lstm": rules.l2l_lstm,
    "learned": rules.learned,
    "meta_lstm": rules.meta_lstm,
    "per_step_sgd": rules.per_step_sgd,
  },
  "meta_gradient": {
    "unrolled": meta_gradients.unrolled,
    "truncated_unroll": meta_gradients.truncated_unroll,
    "reptile": meta_gradients.reptile,
    "leap": meta_gradients.leap,
    "implicit": meta_gradients.implicit,
    "one_step": meta_gradients.one_step,
    "forward_gradient": meta_gradients.forward_gradient,
    "evolution_strategies": meta_gradients.evolution_strategies,
    "warp": warp.online,
    "warp_offline": warp.offline,
    "multi_head": multi_shot.multi_head,
    "untrained": warp.untrained,
    "trpo": reinforcement.trust_region,
    "ppo": reinforcement.proximal,
    "online": reinforcement.along_life,
  },
  "optimizer": {
    "sgd": optimizers.sgd,
    "adam": optimizers.adam,
    "rule_adam": optimizers.rule_adam,
    "none": optimizers.none,
    "life": optimizers.life,
  },
}


def function(kind: str, where: str, name: Any) -> Callable[..., Any]:
  """The function of that name, of `TABLES` or `module:function`.

  Raises:
    ValueError: Where there is none, naming the nearest, or the module cannot be imported.
  """
  if isinstance(name, str) and ":" in name:
    return _imported(where, name)
  return schema.choose(where, name, TABLES[kind])


def named(kind: str, tables: Mapping[str, Table], also: Sequence[str] = (), **given: Any) -> Any:
  """Calls the function that the table of that kind names, with the rest of the table and `given` as arguments.

  `also` are keys that another reader of the table took. A function of a user's gets of `given` what it takes.

  Raises:
    ValueError: For a name that there is not, or an argument that `schema.call` refuses.
  """
  where, key = f"config.{kind}", KEY[kind]
  rest = {name: value for name, value in tables[kind].items() if name != key}
  chosen = function(kind, f"{where}.{key}", tables[kind].get(key))
  taken = {name: value for name, value in given.items() if name in inspect.signature(chosen).parameters}
  return schema.call(where, rest, chosen, also=(key, *also), **taken)


def meta_gradient(tables: Mapping[str, Table], inner: InnerLoop) -> Any:
  """What `config.meta_gradient` names, and what each task draws for itself."""
  table = dict(tables["meta_gradient"])
  mine = {"redrawn": table.pop("redrawn")} if "redrawn" in table else {}
  made = named("meta_gradient", {"meta_gradient": table}, also=("redrawn",), inner=inner)
  return schema.call("config.meta_gradient", mine, meta_gradients.redrawn, made=made)


def draw(table: Table) -> Draw | None:
  """What each task draws for itself, those of the test too; None for nothing."""
  return meta_gradients.DRAWS[table.get("redrawn", "nothing")]


def inner(table: Table, loss_fn: LossFn) -> InnerLoop:
  """The inner loop of `config.inner`, which holds the arguments of the loop and those of its rule."""
  loop_keys = [key for key in inspect.signature(rules.loop).parameters if key not in GIVEN["inner"]]
  mine = {key: value for key, value in table.items() if key in loop_keys}
  rest = {key: value for key, value in table.items() if key not in loop_keys}
  rule = named("inner", {"inner": rest}, also=loop_keys)
  return schema.call("config.inner", mine, rules.loop, loss_fn=loss_fn, rule=rule)


def loss(name: str | None, metric: str) -> Callable[..., LossFn]:
  """`(apply) -> loss`: the function that `config.loss` names, or that of the metric."""
  return _imported("config.loss", name) if name else LOSSES[metric]


def has_schedule(optimizer: Table) -> bool:
  """Whether the learning rate of `config.optimizer` depends on the number of meta-steps."""
  parameters = inspect.signature(function("optimizer", "config.optimizer.name", optimizer["name"])).parameters
  if "num_meta_steps" not in parameters:
    return False
  return "schedule" not in parameters or optimizer.get("schedule") not in (None, "constant")


def readers(kind: str, table: Table) -> list[Callable[..., Any]]:
  """The functions whose arguments a table of a config holds; without that which it names where there is none."""
  beside: dict[str, list[Callable[..., Any]]] = {"inner": [rules.loop], "meta_gradient": [meta_gradients.redrawn]}
  name = table.get(KEY[kind])
  known = isinstance(name, str) and (":" in name or name in TABLES[kind])
  return [*([function(kind, f"config.{kind}.{KEY[kind]}", name)] if known else []), *beside.get(kind, [])]


def user_modules(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
  """Where the modules are that a config names functions of, `module:function`: their folders and SHA-256.

  Raises:
    ValueError: If one cannot be imported.
  """
  names = [(settings.get(kind) or {}).get(KEY[kind]) for kind in KINDS] + [settings.get("loss")]
  modules = sorted({name.partition(":")[0] for name in names if isinstance(name, str) and ":" in name})
  return {name: _origin(name) for name in modules if not name.startswith("warpjax.")}


def check_modules(recorded: Mapping[str, Mapping[str, str]]) -> None:
  """Makes the modules of a run importable, and raises a ValueError where one is gone or is another than it was."""
  for name, origin in recorded.items():
    if origin["folder"] not in sys.path:
      sys.path.append(origin["folder"])
    found = _origin(name)
    if found["sha256"] != origin["sha256"]:
      raise ValueError(
        f"{name}, which the config names, has changed since the run began: {found['folder']} has SHA-256 "
        f"{found['sha256'][:12]}; {origin['folder']} had {origin['sha256'][:12]}. Put it back, or use a new --workdir."
      )


def _origin(name: str) -> dict[str, str]:
  try:
    file = importlib.import_module(name).__file__
  except ImportError as error:
    raise ValueError(f"the config names {name}:..., and {error}. Its folder must be on Python's path.") from None
  if file is None:
    raise ValueError(f"the config names {name}:..., which has no file.")
  path, depth = pathlib.Path(file).resolve(), name.count(".") + 1
  folder = path.parents[depth - 1 if path.name != "__init__.py" else depth]
  return {"folder": str(folder), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _imported(where: str, name: str) -> Callable[..., Any]:
  module, _, attribute = name.partition(":")
  try:
    found = getattr(importlib.import_module(module), attribute, None)
  except ImportError as error:
    raise ValueError(f"{where} must be module:function; got {name!r}, and {error}.") from None
  if not callable(found):
    raise ValueError(f"{where} must be module:function; {module} has no function {attribute!r}.")
  return found
