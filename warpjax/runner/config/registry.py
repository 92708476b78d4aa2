"""Resolves the names in a config to functions; no other module does.

Each table of a config names a function and has its arguments, so that the signatures define the settings. A name is one
of `TABLES`, or `module:function` with a module on Python's path or in the folder of the config.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import optax

from warpjax import losses, meta_gradients, networks, rules
from warpjax.meta_gradients import Start
from warpjax.runner import components
from warpjax.runner.config import schema
from warpjax.runner.families import base, bilevel, image_data, multi_shot, optimizees, reinforcement, synthetic, text
from warpjax.tasks.text import next_byte
from warpjax.types import Apply, InnerLoop, LossFn

Table = Mapping[str, Any]

KINDS = ("data", "network", "inner", "meta_gradient", "optimizer")
"""The tables of a config that name a function."""

KEY = {**dict.fromkeys(KINDS, "name"), "inner": "rule"}
"""The setting that names the function of each."""

GIVEN: dict[str, tuple[str, ...]] = {
  "data": ("data_dir", "cache_dir"),
  "network": ("num_outputs", "num_classes", "module", "parent"),
  "inner": ("loss_fn", "rule"),
  "meta_gradient": ("inner", "apply", "made"),
  "optimizer": ("num_meta_steps",),
}
"""Arguments that the runner passes, which are no settings."""

LOSSES: dict[str, Callable[..., LossFn]] = {
  "accuracy": losses.classification,
  "mse": losses.regression,
  "height": synthetic.surface_loss,
  "loss": optimizees.loss,
  "return": reinforcement.policy_loss,
  "bits_per_byte": next_byte,
}
"""The loss of each metric, unless the config names a loss."""

TABLES: dict[str, dict[str, Callable[..., Any]]] = {
  "data": {
    "sinusoid": base.sinusoid,
    "omniglot": base.omniglot,
    "multi_shot_omniglot": multi_shot.omniglot,
    "continual": synthetic.continual,
    "surfaces": synthetic.surfaces,
    "quadratics": optimizees.quadratics,
    "trainings": optimizees.trainings,
    "hyper_cleaning": bilevel.hyper_cleaning,
    "mnist1d": bilevel.mnist1d,
    "bilevel_quadratic": bilevel.quadratics,
    "navigation": reinforcement.navigation,
    "maze": reinforcement.maze,
    "text": text.text,
    **image_data.SETS,
  },
  "network": {
    "mlp": networks.MLP,
    "maml_sinusoid": networks.maml_sinusoid,
    "reptile_sinusoid": networks.reptile_sinusoid,
    "maml_omniglot": networks.maml_omniglot,
    "meta_sgd_omniglot": networks.meta_sgd_omniglot,
    "reptile_omniglot": networks.reptile_omniglot,
    "imaml_omniglot": networks.imaml_omniglot,
    "cavia_sinusoid": networks.cavia_sinusoid,
    "cavia_omniglot": networks.cavia_omniglot,
    "warpgrad_omniglot": networks.warpgrad_omniglot,
    "maml_mini_imagenet": networks.maml_mini_imagenet,
    "mamlpp_mini_imagenet": networks.mamlpp_mini_imagenet,
    "reptile_mini_imagenet": networks.reptile_mini_imagenet,
    "warpgrad_mini_imagenet": networks.warpgrad_mini_imagenet,
    "resnet12": networks.ResNet12,
    "multi_headed_omniglot": multi_shot.multi_headed,
    "plane_warp": synthetic.plane_warp,
    "displacement": optimizees.displacement,
    "example_weights": bilevel.example_weights,
    "bilevel_variables": bilevel.variables,
    "learned_activation": bilevel.learned_activation,
    "gaussian_mlp": networks.GaussianMLP,
    "rnn": reinforcement.recurrent_network(networks.RNN),
    "warp_rnn": reinforcement.recurrent_network(networks.WarpRNN),
    "hebbian": reinforcement.recurrent_network(networks.HebbianRNN),
    "transformer": networks.Transformer,
  },
  "inner": {
    "sgd": components.rules.sgd,
    "adam": rules.adam,
    "alfa": rules.alfa,
    "meta_sgd": rules.meta_sgd,
    "newton_cg": rules.newton_cg,
    "rmsprop": rules.rmsprop,
    "kronecker": rules.kronecker,
    "l2l_lstm": rules.l2l_lstm,
    "learned": components.rules.learned,
    "meta_lstm": rules.meta_lstm,
    "per_step_sgd": components.rules.per_step_sgd,
  },
  "meta_gradient": {
    "unrolled": components.meta_gradients.unrolled,
    "bootstrapped": components.meta_gradients.bootstrapped,
    "truncated_unroll": components.meta_gradients.truncated_unroll,
    "reptile": components.meta_gradients.reptile,
    "leap": meta_gradients.leap,
    "implicit": components.meta_gradients.implicit,
    "warm_implicit": components.meta_gradients.warm_implicit,
    "penalty": components.meta_gradients.penalty,
    "sama": meta_gradients.sama,
    "soba": meta_gradients.soba,
    "one_step": meta_gradients.one_step,
    "forward_gradient": meta_gradients.forward_gradient,
    "evolution_strategies": components.meta_gradients.evolution_strategies,
    "warp": components.warp.online,
    "warp_offline": components.warp.offline,
    "multi_head": multi_shot.multi_head,
    "untrained": components.warp.untrained,
    "trpo": reinforcement.trust_region,
    "ppo": reinforcement.proximal,
    "online": reinforcement.along_life,
  },
  "optimizer": {
    "sgd": components.optimizers.sgd,
    "adam": components.optimizers.adam,
    "rule_adam": components.optimizers.rule_adam,
    "one_block": components.optimizers.one_block,
    "none": optax.identity,
    "life": components.optimizers.life,
  },
}


def function(kind: str, where: str, name: Any) -> Callable[..., Any]:
  """The function of that name, in `TABLES` or as `module:function`.

  Raises:
    ValueError: For an unknown name, with the nearest, or a module that cannot be imported.
  """
  if isinstance(name, str) and ":" in name:
    return _imported(where, name)
  return schema.choose(where, name, TABLES[kind])


def named(kind: str, tables: Mapping[str, Table], **passed: Any) -> Any:
  """Calls the function that the table of that kind names, with the rest of the table and `passed` as arguments.

  Some kinds have a second function, which takes the result and the remaining settings: an inner loop around a rule, a
  network of a flax module, a meta-gradient of a contribution. Each function gets the arguments of `passed` that it
  takes.

  Raises:
    ValueError: For an unknown name, or an argument that `schema.call` refuses.
  """
  where, key, table = f"config.{kind}", KEY[kind], tables[kind]
  chosen = function(kind, f"{where}.{key}", table.get(key))
  second = _second(kind, chosen)
  others = () if second is None else tuple(schema.parameters_of(second, GIVEN[kind]))
  own = {name: value for name, value in table.items() if name not in (key, *others)}
  made = schema.call(where, own, chosen, also=(key, *others), **_taken(chosen, passed))
  if second is None:
    return made
  rest = {name: value for name, value in table.items() if name in others}
  return schema.call(where, rest, second, **{_MADE[kind]: made}, **_taken(second, passed))


_MADE = {"inner": "rule", "meta_gradient": "made", "network": "module"}


def _second(kind: str, chosen: Callable[..., Any] | None) -> Callable[..., Any] | None:
  if kind == "network":
    return components.learners.reader(chosen) if chosen else None
  seconds: dict[str, Callable[..., Any]] = {
    "inner": components.rules.loop,
    "meta_gradient": components.meta_gradients.whole,
  }
  return seconds.get(kind)


def _taken(chosen: Callable[..., Any], passed: Table) -> dict[str, Any]:
  return {name: value for name, value in passed.items() if name in inspect.signature(chosen).parameters}


def inner(table: Table, loss_fn: LossFn) -> InnerLoop:
  """The inner loop of `config.inner`, a table with the arguments of the loop and of its rule."""
  return named("inner", {"inner": table}, loss_fn=loss_fn)


def meta_gradient(tables: Mapping[str, Table], inner: InnerLoop, apply: Apply | None = None) -> Any:
  """The result of `config.meta_gradient`: a meta-gradient of one task, a `NeedsTask`, or an `OuterStep`."""
  return named("meta_gradient", tables, inner=inner, apply=apply)


def network(tables: Mapping[str, Table], num_outputs: int) -> networks.Network:
  """The network of `config.network`, with that many outputs or classes."""
  return named("network", tables, num_outputs=num_outputs, num_classes=num_outputs)


def start(table: Table, apply: Apply) -> Start | None:
  """The start of each task of training and test; None for the learned parameters."""
  return components.meta_gradients.start_of(apply, table.get("redrawn", "nothing"), table.get("start", "learned"))


def loss(name: str | None, metric: str) -> Callable[..., LossFn]:
  """`(apply) -> loss`: the function of `config.loss`, or that of the metric."""
  return _imported("config.loss", name) if name else LOSSES[metric]


def has_schedule(optimizer: Table) -> bool:
  """Whether the learning rate of `config.optimizer` depends on the number of meta-steps."""
  parameters = inspect.signature(function("optimizer", "config.optimizer.name", optimizer["name"])).parameters
  if "num_meta_steps" not in parameters:
    return False
  return "schedule" not in parameters or optimizer.get("schedule") not in (None, "constant")


def readers(kind: str, table: Table) -> list[tuple[Callable[..., Any], tuple[str, ...]]]:
  """The functions whose arguments a table contains, each with the names that are not among its settings.

  An unknown function is left out.
  """
  name, key = table.get(KEY[kind]), KEY[kind]
  known = isinstance(name, str) and (":" in name or name in TABLES[kind])
  chosen = function(kind, f"config.{kind}.{key}", name) if known else None
  second = _second(kind, chosen)
  others = () if second is None else tuple(schema.parameters_of(second, GIVEN[kind]))
  first = [] if chosen is None else [(chosen, (*GIVEN[kind], key, *others))]
  return first if second is None else [*first, (second, GIVEN[kind])]


def user_modules(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
  """The folder and SHA-256 of each module that a config names as `module:function`.

  Raises:
    ValueError: If one cannot be imported.
  """
  names = [(settings.get(kind) or {}).get(KEY[kind]) for kind in KINDS] + [settings.get("loss")]
  modules = sorted({name.partition(":")[0] for name in names if isinstance(name, str) and ":" in name})
  return {name: _origin(name) for name in modules if not name.startswith("warpjax.")}


def make_importable(recorded: Mapping[str, Mapping[str, str]]) -> None:
  """Puts the folders of the modules of a run on Python's path."""
  for origin in recorded.values():
    if origin["folder"] not in sys.path:
      sys.path.append(origin["folder"])


def check_modules(recorded: Mapping[str, Mapping[str, str]]) -> None:
  """Makes the modules of a run importable; raises a ValueError if one is missing or has changed."""
  make_importable(recorded)
  for name, origin in recorded.items():
    now = _origin(name)
    if now["sha256"] != origin["sha256"]:
      raise ValueError(
        f"{name}, which the config names, has changed since the run began: {now['folder']} has SHA-256 "
        f"{now['sha256'][:12]}; {origin['folder']} had {origin['sha256'][:12]}. Put it back, or use a new --workdir."
      )


def _origin(name: str) -> dict[str, str]:
  """The folder and SHA-256 of a module, which is imported again if its file has changed since, as in a notebook."""
  try:
    module = importlib.import_module(name)
    if module.__file__ is None:
      raise ValueError(f"the config names {name}:..., which has no file.")
    path = pathlib.Path(module.__file__).resolve()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if _imported_as.setdefault((name, id(module)), sha256) != sha256:
      module = importlib.reload(module)
      _imported_as[name, id(module)] = sha256
  except (ImportError, OSError) as error:  # OSError for a file that is gone
    raise ValueError(f"the config names {name}:..., and {error}. Its folder must be on Python's path.") from None
  depth = name.count(".") + 1
  folder = path.parents[depth - 1 if path.name != "__init__.py" else depth]
  return {"folder": str(folder), "sha256": sha256}


_imported_as: dict[tuple[str, int], str] = {}  # by a module's name and identity, the SHA-256 of the file it was made of


def _imported(where: str, name: str) -> Callable[..., Any]:
  module, _, attribute = name.partition(":")
  try:
    function = getattr(importlib.import_module(module), attribute, None)
  except ImportError as error:
    raise ValueError(f"{where} must be module:function; got {name!r}, and {error}.") from None
  if not callable(function):
    raise ValueError(f"{where} must be module:function; {module} has no function {attribute!r}.")
  return function
