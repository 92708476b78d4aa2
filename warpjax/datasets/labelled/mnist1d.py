"""MNIST-1D: sequences of 40 numbers in ten classes, made by the package `mnist1d`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

from warpjax.datasets.labelled.examples import Labelled


def load(num_examples: int = 5000, seed: int = 42) -> Labelled:
  """Makes MNIST-1D, without a download: four fifths of the examples are for training.

  Args:
    num_examples: Examples of both parts; the released file has 5000.
    seed: Seed of the generator; the released file has 42.

  Returns:
    A `Labelled`; examples are float32 `[examples, 40]`.

  Raises:
    ImportError: without the package `mnist1d`, with the command that installs it.

  Reference:
    Greydanus and Kobak 2024, arXiv 2011.14439.
  """
  try:
    from mnist1d import data as made
  except ImportError as error:
    raise ImportError('MNIST-1D needs the package mnist1d: pip install -e ".[mnist1d]"') from error
  settings = made.get_dataset_args()
  settings.num_samples, settings.seed = num_examples, seed
  with _global_generators():
    arrays = made.make_dataset(settings)
  return Labelled(
    *(np.asarray(arrays[name], np.int32 if "y" in name else np.float32) for name in ("x", "y", "x_test", "y_test"))
  )


@contextlib.contextmanager
def _global_generators() -> Iterator[None]:
  """Restores the global random generators of Python and NumPy, which the package seeds."""
  before = random.getstate(), np.random.get_state()
  try:
    yield
  finally:
    random.setstate(before[0])
    np.random.set_state(before[1])
