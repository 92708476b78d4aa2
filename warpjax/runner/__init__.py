"""The runner: from a config to a workdir with a result, as `warpjax train` and the other commands do, from Python.

  from warpjax import runner

  config = runner.load_config("sinusoid:maml", "inner.num_steps=5")
  result = runner.train_and_evaluate(config, "runs/maml")
  experiment, state = runner.restore("runs/maml")

Nothing else in warpjax imports it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from warpjax.runner.config.settings import load_config
  from warpjax.runner.experiment import build
  from warpjax.runner.machine.interrupts import Interrupted
  from warpjax.runner.run import restore, train_and_evaluate

__all__ = ["Interrupted", "build", "load_config", "restore", "train_and_evaluate"]

_HOMES = {
  "Interrupted": "machine.interrupts",
  "build": "experiment",
  "load_config": "config.settings",
  "restore": "run",
  "train_and_evaluate": "run",
}


def __getattr__(name: str) -> Any:
  """Imports a name when it is first used; the command must hear Ctrl-C before JAX is imported."""
  if name not in _HOMES:
    raise AttributeError(f"module 'warpjax.runner' has no attribute {name!r}")
  return getattr(importlib.import_module(f"warpjax.runner.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
