"""The type of a set of labelled examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Labelled(NamedTuple):
  """A set of labelled examples.

  Attributes:
    train_x: `[examples, ...]`.
    train_y: int32 `[examples]`.
    test_x: The test examples.
    test_y: Their labels.
  """

  train_x: np.ndarray
  train_y: np.ndarray
  test_x: np.ndarray
  test_y: np.ndarray
