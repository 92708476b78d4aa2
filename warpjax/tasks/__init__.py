"""Tasks: samplers `(key) -> Task` that run on the device, and the data sets behind them.

Importing this is light: a data set's reader imports what it needs when it is called.
"""

from warpjax.tasks import (
  augment,
  cifar,
  continual,
  few_shot,
  image_sets,
  mini_imagenet,
  multi_shot,
  omniglot,
  optimizees,
  published_set,
  quadratic,
  sinusoid,
  splits,
  surfaces,
  tiered_imagenet,
)
from warpjax.tasks.cache import DatasetNotFoundError
from warpjax.tasks.few_shot import tasks_from_arrays

__all__ = [
  "DatasetNotFoundError",
  "augment",
  "cifar",
  "continual",
  "few_shot",
  "image_sets",
  "mini_imagenet",
  "multi_shot",
  "omniglot",
  "optimizees",
  "published_set",
  "quadratic",
  "sinusoid",
  "splits",
  "surfaces",
  "tasks_from_arrays",
  "tiered_imagenet",
]
