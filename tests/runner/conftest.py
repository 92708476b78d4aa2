"""Fixtures of the runner's tests."""

from __future__ import annotations

import types
from collections.abc import Iterator

import pytest

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


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
  """Prints nothing of what a slow machine waits for."""
  monkeypatch.setattr(progress, "WAIT_SECONDS", 1e6)
