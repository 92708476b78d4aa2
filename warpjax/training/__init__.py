"""Meta-training: a state, a meta-step over a task batch, composed and parallel meta-steps, replay, and checkpoints."""

from warpjax.training import checkpoints, compose, optimizers, parallel, replay, streams, task_batch
from warpjax.training.step import (
  Dispatch,
  Metrics,
  Step,
  StepFn,
  TrainState,
  init,
  many_steps,
  meta_step,
  sample_tasks,
  skip_nonfinite,
)

__all__ = [
  "Dispatch",
  "Metrics",
  "Step",
  "StepFn",
  "TrainState",
  "checkpoints",
  "compose",
  "init",
  "many_steps",
  "meta_step",
  "optimizers",
  "parallel",
  "replay",
  "sample_tasks",
  "skip_nonfinite",
  "streams",
  "task_batch",
]
