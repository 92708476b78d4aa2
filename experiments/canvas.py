"""Figures that no window shows, wherever they are drawn: in a script, a test or a notebook."""

from __future__ import annotations

import importlib.util
from typing import Any


def require() -> None:
  """Raises `ImportError` where there is no matplotlib, for scripts that draw after long work."""
  if importlib.util.find_spec("matplotlib") is None:
    raise ImportError("matplotlib is not installed, and results come with a picture; `pip install matplotlib`.")


def subplots(
  rows: int = 1, columns: int = 1, *, squeeze: bool = True, sharex: bool = False, sharey: bool = False, **figure: Any
) -> Any:
  """`pyplot.subplots` without its global state: nothing to close, no backend chosen; matplotlib is imported here.

  Args:
    rows: Of axes.
    columns: Of axes.
    squeeze: As in matplotlib.
    sharex: As in matplotlib.
    sharey: As in matplotlib.
    **figure: Settings of the figure.

  Returns:
    The figure and its axes.
  """
  from matplotlib.figure import Figure

  canvas = Figure(**figure)
  return canvas, canvas.subplots(rows, columns, squeeze=squeeze, sharex=sharex, sharey=sharey)
