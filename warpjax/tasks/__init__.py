"""Tasks: samplers `(key) -> Task` that run on the device; `warpjax.datasets` has the data sets behind them."""

from __future__ import annotations

from typing import Any

from warpjax import datasets
from warpjax.tasks import (
  augment,
  bilevel_quadratic,
  continual,
  few_shot,
  hyper_cleaning,
  mnist1d_training,
  multi_shot,
  optimizees,
  quadratic,
  sinusoid,
  surfaces,
  text,
)
from warpjax.tasks.few_shot import tasks_from_arrays

__all__ = [
  "augment",
  "bilevel_quadratic",
  "continual",
  "few_shot",
  "hyper_cleaning",
  "mnist1d_training",
  "multi_shot",
  "optimizees",
  "quadratic",
  "sinusoid",
  "surfaces",
  "tasks_from_arrays",
  "text",
]


def __getattr__(name: str) -> Any:
  if name in datasets.__all__:  # where version 0.1.0 had them
    return getattr(datasets, name)
  raise AttributeError(f"module 'warpjax.tasks' has no attribute {name!r}")
