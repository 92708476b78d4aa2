"""Tasks: samplers `(key) -> Task` that run on the device, and the data sets behind them.

Importing this is light: a data set's reader imports what it needs when it is called.
"""

from warpjax.tasks import (
  augment,
  continual,
  few_shot,
  mini_imagenet,
  multi_shot,
  omniglot,
  optimizees,
  quadratic,
  sinusoid,
  splits,
  surfaces,
)
from warpjax.tasks.cache import DatasetNotFoundError
from warpjax.tasks.few_shot import tasks_from_arrays

__all__ = [
  "DatasetNotFoundError",
  "augment",
  "continual",
  "few_shot",
  "mini_imagenet",
  "multi_shot",
  "omniglot",
  "optimizees",
  "quadratic",
  "sinusoid",
  "splits",
  "surfaces",
  "tasks_from_arrays",
]
