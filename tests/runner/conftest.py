"""Fixtures of the runner's tests."""

from __future__ import annotations

import os
import pathlib
import shutil
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.runner.commands import Commands
from warpjax.runner import run
from warpjax.runner.plots import figures
from warpjax.runner.reporting import progress


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
  """Command lines in processes of their own."""
  server = Commands(tmp_path_factory.mktemp("commands"))
  yield server
  server.close()


@pytest.fixture(scope="session", autouse=True)
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
  """The picture of a run is that of the first run with its metric, as a picture takes a quarter of a small run."""
  drawn: dict[tuple[str, int], pathlib.Path] = {}

  def draw(
    directories: Sequence[pathlib.Path], output: str | os.PathLike[str], *, results: Sequence[Mapping[str, Any]]
  ) -> None:
    kind = results[0]["metric"], len(results)
    if kind in drawn:
      shutil.copy(drawn[kind], output)
      return
    figures.draw(directories, output, results=results)
    drawn[kind] = pathlib.Path(shutil.copy(output, tmp_path_factory.mktemp("picture")))

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run, "figures", types.SimpleNamespace(draw=draw))
    yield


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
  """Prints nothing of what a slow machine waits for."""
  monkeypatch.setattr(progress, "WAIT_SECONDS", 1e6)
