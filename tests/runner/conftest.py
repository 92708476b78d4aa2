"""Fixtures of the runner's tests."""

from __future__ import annotations

import types
from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from tests.runner.commands import Commands, drawn_once
from warpjax.runner import run
from warpjax.runner.reporting import progress


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
  """Command lines in processes of their own."""
  server = Commands(tmp_path_factory.mktemp("commands"))
  yield server
  server.close()


@pytest.fixture(scope="session", autouse=True)
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
  """The picture of a run is that of the first run of its kind."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run, "figures", types.SimpleNamespace(draw=drawn_once(tmp_path_factory.mktemp("pictures"))))
    yield


@pytest.fixture(scope="module", autouse=True)
def kept_programs() -> Iterator[None]:
  """Compiles the programs of a run once: many tests train the same run."""
  before = jax.config.values["jax_enable_compilation_cache"]
  jax.config.update("jax_enable_compilation_cache", True)
  reset_cache()
  yield
  jax.config.update("jax_enable_compilation_cache", before)
  reset_cache()


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
  """Prints nothing of what a slow machine waits for."""
  monkeypatch.setattr(progress, "WAIT_SECONDS", 1e6)
