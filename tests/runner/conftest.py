"""Fixtures of the runner's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runner.commands import Commands
from warpjax.runner.reporting import progress


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
  """Command lines in processes of their own."""
  server = Commands(tmp_path_factory.mktemp("commands"))
  yield server
  server.close()


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
  """Prints nothing of what a slow machine waits for."""
  monkeypatch.setattr(progress, "WAIT_SECONDS", 1e6)
