"""Evaluation on test tasks: the metric after each inner step, its interval, and the choice of batch statistics."""

from warpjax.evaluation import readouts, step_statistics
from warpjax.evaluation.evaluate import (
  Evaluation,
  ci95_of_few,
  continued,
  ensemble,
  evaluate,
  evaluator,
  mean_and_ci95,
  over_tasks,
)

__all__ = [
  "Evaluation",
  "ci95_of_few",
  "continued",
  "ensemble",
  "evaluate",
  "evaluator",
  "mean_and_ci95",
  "over_tasks",
  "readouts",
  "step_statistics",
]
