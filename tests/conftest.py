"""Fixtures of every test."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def x64() -> Iterator[None]:
  """Runs a test in double precision."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def strict() -> Iterator[None]:
  """Runs a test in double precision, and refuses broadcasts between ranks, which hide wrong shapes."""
  with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
    yield
