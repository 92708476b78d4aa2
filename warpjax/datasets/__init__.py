"""Data sets as arrays: image files and tensorflow-datasets, checked, decoded and kept in the user's cache.

This package imports nothing else of warpjax; `warpjax.tasks` samples tasks from the arrays. Importing it is fast: a
reader imports what it needs when it is called.
"""

from warpjax.datasets import (
  cifar,
  decode,
  image_sets,
  mini_imagenet,
  omniglot,
  published_set,
  splits,
  text,
  tiered_imagenet,
)
from warpjax.datasets.labelled import fashion_mnist, mnist1d
from warpjax.datasets.store import DatasetNotFoundError

__all__ = [
  "DatasetNotFoundError",
  "cifar",
  "decode",
  "fashion_mnist",
  "image_sets",
  "mini_imagenet",
  "mnist1d",
  "omniglot",
  "published_set",
  "splits",
  "text",
  "tiered_imagenet",
]
