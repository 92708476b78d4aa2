"""Fixtures of every test."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import jax
import pytest

SLOW_SECONDS = 3600  # a slow test that says nothing else


def pytest_configure() -> None:
  """Takes SIGINT as usual where the tests are a shell's background job, which ignores it, and so do its children."""
  ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
  if ignored and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  """Slow tests have a longer limit, unless they bring their own."""
  for item in items:
    if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
      item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


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
