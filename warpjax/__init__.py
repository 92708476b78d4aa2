"""warpjax: gradient-based meta-learning in JAX, from three choices.

Which parameters adapt (`MetaParams`), how they adapt (`rules`), how the meta-gradient is obtained (`meta_gradients`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from warpjax import (
  cost,
  datasets,
  evaluation,
  geometry,
  linear_solve,
  losses,
  meta_gradients,
  meta_steps,
  norm_stats,
  optimizers,
  padding,
  parallel,
  replay,
  rl,
  rules,
  sanity,
  step_statistics,
  streams,
  tasks,
  training,
)
from warpjax.adaptation import adapt, epochs, full_batch, full_query, minibatch
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
  "cost",
  "datasets",
  "epochs",
  "evaluation",
  "full_batch",
  "full_query",
  "geometry",
  "linear_solve",
  "losses",
  "meta_gradients",
  "meta_steps",
  "minibatch",
  "networks",
  "norm_stats",
  "optimizers",
  "padding",
  "parallel",
  "replay",
  "rl",
  "rules",
  "sanity",
  "step_statistics",
  "streams",
  "tasks",
  "training",
]


def __getattr__(name: str) -> Any:
  # Flax takes longer to import than everything else here together, and a learner of one's own may not need it.
  if name == "networks":
    return importlib.import_module("warpjax.networks")
  raise AttributeError(f"module 'warpjax' has no attribute {name!r}")
