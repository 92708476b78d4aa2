"""Batches in stored order."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy
from warpjax.tasks import mnist1d_training


def test_batches_follow_the_stored_order_and_start_again():
  batch_fn, support = mnist1d_training.in_order(4), (jnp.arange(10), jnp.arange(10) ** 2)
  seen = [batch_fn(toy.key(), support, jnp.int32(step), (), ()) for step in range(5)]
  numbers = np.concatenate([np.asarray(x) for x, _ in seen])
  np.testing.assert_array_equal(numbers, np.arange(20) % 10)
  np.testing.assert_array_equal(np.concatenate([y for _, y in seen]), numbers**2)


def test_bad_input():
  with pytest.raises(ValueError, match="size must be an integer of at least 1; got 0"):
    mnist1d_training.in_order(0)
