"""warpjax: gradient-based meta-learning in JAX.

Choose which parameters adapt (`MetaParams`), how they adapt (`rules`), and the meta-gradient (`meta_gradients`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from warpjax import (
    datasets,
    diagnostics,
    evaluation,
    linear_solve,
    losses,
    meta_gradients,
    networks,
    padding,
    rl,
    rules,
    tasks,
    training,
  )
  from warpjax.adaptation import adapt, epochs, full_batch, full_query, minibatch
  from warpjax.diagnostics import cost, geometry
  from warpjax.training import checkpoints, optimizers, parallel, replay, streams
  from warpjax.types import CarriedMetaGrad, InnerLoop, MetaGradFn, MetaParams, Task, Trajectory, UpdateRule

__version__ = "0.1.0"

__all__ = [
  "CarriedMetaGrad",
  "InnerLoop",
  "MetaGradFn",
  "MetaParams",
  "Task",
  "Trajectory",
  "UpdateRule",
  "adapt",
  "checkpoints",
  "cost",
  "datasets",
  "diagnostics",
  "epochs",
  "evaluation",
  "full_batch",
  "full_query",
  "geometry",
  "linear_solve",
  "losses",
  "meta_gradients",
  "minibatch",
  "networks",
  "optimizers",
  "padding",
  "parallel",
  "replay",
  "rl",
  "rules",
  "streams",
  "tasks",
  "training",
]

# Where the functions and classes are.
_HOMES = {
  **dict.fromkeys(("adapt", "epochs", "full_batch", "full_query", "minibatch"), "adaptation"),
  **dict.fromkeys(
    ("CarriedMetaGrad", "InnerLoop", "MetaGradFn", "MetaParams", "Task", "Trajectory", "UpdateRule"), "types"
  ),
}
# New places of modules that version 0.1.0 had in this folder.
_MOVED = {
  **{name: f"diagnostics.{name}" for name in ("cost", "geometry")},
  **{name: f"training.{name}" for name in ("checkpoints", "optimizers", "parallel", "replay", "streams")},
  "meta_steps": "training.compose",
  "norm_stats": "evaluation.readouts",
  "sanity": "diagnostics",
  "step_statistics": "evaluation.step_statistics",
}


def __getattr__(name: str) -> Any:
  """Imports a name when it is first used, so that a command answers, and handles Ctrl-C, before JAX is imported."""
  home = _HOMES.get(name)
  place = home or _MOVED.get(name, name)
  if name.startswith("_") or importlib.util.find_spec(f"warpjax.{place}") is None:
    raise AttributeError(f"module 'warpjax' has no attribute {name!r}")
  jax = sys.modules.get("jax")
  # The first use may be inside of jit, where an array that a module makes would be one of the traced program.
  with getattr(jax, "ensure_compile_time_eval", contextlib.nullcontext)():
    module = importlib.import_module(f"warpjax.{place}")
  globals()[name] = getattr(module, name) if home else module
  return globals()[name]


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
