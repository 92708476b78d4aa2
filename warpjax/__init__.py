"""warpjax: gradient-based meta-learning in JAX, from three choices.

Which parameters adapt (`MetaParams`), how they adapt (`rules`), how the meta-gradient is obtained (`meta_gradients`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warpjax import (
  datasets,
  diagnostics,
  evaluation,
  linear_solve,
  losses,
  meta_gradients,
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

if TYPE_CHECKING:
  from warpjax import networks

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


# Where version 0.1.0 had them, and where they are.
_MOVED = {
  "meta_steps": "training.compose",
  "norm_stats": "evaluation.readouts",
  "sanity": "diagnostics",
  "step_statistics": "evaluation.step_statistics",
}


def __getattr__(name: str) -> Any:
  # Flax takes longer to import than everything else here together, and a learner of one's own may not need it.
  if name == "networks" or name in _MOVED:
    return importlib.import_module(f"warpjax.{_MOVED.get(name, name)}")
  raise AttributeError(f"module 'warpjax' has no attribute {name!r}")
