"""Figures without a window, for scripts, tests and notebooks."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any


def require() -> None:
  """Raises `ImportError` where there is no matplotlib, for scripts that draw after long work."""
  if importlib.util.find_spec("matplotlib") is None:
    raise ImportError("matplotlib is not installed, and results come with a picture; `pip install matplotlib`.")


def file_of(output: str | os.PathLike[str]) -> pathlib.Path:
  """The file that matplotlib writes for a name, a PNG where the name has no suffix.

  Example:
    >>> file_of("runs/comparison").as_posix(), file_of("runs/v1.2/all.svg").as_posix()
    ('runs/comparison.png', 'runs/v1.2/all.svg')
  """
  path = pathlib.Path(output)
  return path if path.suffix.strip(".") else path.with_name(path.name.rstrip(".") + ".png")


def save(figure: Any, output: str | os.PathLike[str], dpi: int = 120) -> None:
  """Writes a figure; its folder is made if it does not exist."""
  pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(output, dpi=dpi)


def subplots(
  rows: int = 1, columns: int = 1, *, squeeze: bool = True, sharex: bool = False, sharey: bool = False, **figure: Any
) -> Any:
  """`pyplot.subplots` without its global state: nothing to close, no backend chosen; `figure` are `Figure`'s settings.

  Matplotlib is imported when it is called.
  """
  from matplotlib.figure import Figure

  canvas = Figure(**figure)
  return canvas, canvas.subplots(rows, columns, squeeze=squeeze, sharex=sharex, sharey=sharey)
