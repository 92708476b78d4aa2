"""Fixtures of the experiments' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.experiments.commands import Commands


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
  """Command lines in processes of their own."""
  server = Commands(tmp_path_factory.mktemp("commands"))
  yield server
  server.close()
