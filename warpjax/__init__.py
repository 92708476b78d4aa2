"""warpjax: gradient-based meta-learning in JAX, from three choices.

Which parameters adapt (`MetaParams`), how they adapt (`rules`), how the meta-gradient is obtained (`meta_gradients`).
"""

from warpjax import (
  evaluation,
  geometry,
  linear_solve,
  losses,
  meta_gradients,
  networks,
  norm_stats,
  optimizers,
  parallel,
  replay,
  rules,
  step_statistics,
  tasks,
  training,
)
from warpjax.adaptation import adapt, epochs, full_batch, full_query, minibatch
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
  "norm_stats",
  "optimizers",
  "parallel",
  "replay",
  "rules",
  "step_statistics",
  "tasks",
  "training",
]
