"""Runs a notebook, and compares what it prints and draws with what it has stored.

  python -m tests.experiments.notebook_outputs experiments/notebooks/1_compose.ipynb            # compares
  python -m tests.experiments.notebook_outputs --write experiments/notebooks/1_compose.ipynb    # stores

A stored picture is a small PNG, and beside it the data of its lines and images (`DATA`), which are compared. Times are
not compared, as they differ between machines.
"""

from __future__ import annotations

import base64
import io
import math
import pathlib
import re
import sys
from collections.abc import Iterator

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tests.docs import page_code

ROOT = pathlib.Path(__file__).parents[2]
DATA = "application/vnd.warpjax.figure+json"
TIME = re.compile(r"\d[\d.,]*(?= (?:ms|s|seconds|milliseconds)\b)")
SETUP = f"""
import numpy
from matplotlib.figure import Figure

def _thinned(values, most=12):
  values = numpy.ma.filled(numpy.ma.asarray(values, float), numpy.nan).ravel()
  chosen = values[numpy.unique(numpy.linspace(0, len(values) - 1, most).astype(int))] if len(values) else values
  return [float(f"{{value:.3g}}") if numpy.isfinite(value) else None for value in chosen]

def _data(figure, include=None, exclude=None):
  parts = []
  for axes in figure.axes:
    lines = [[_thinned(line.get_xdata()), _thinned(line.get_ydata())] for line in axes.lines[:40]]
    images = [_thinned(image.get_array()) for image in axes.images]
    parts.append({{"labels": [axes.get_xlabel(), axes.get_ylabel()], "lines": lines, "images": images}})
  return {{"{DATA}": parts}}

get_ipython().display_formatter.mimebundle_formatter.for_type(Figure, _data)
"""


def execute(path: pathlib.Path) -> nbformat.NotebookNode:
  """The notebook as it is after a run, its outputs reduced to what is stored."""
  notebook = nbformat.read(path, as_version=4)
  notebook.cells.insert(0, nbformat.v4.new_code_cell(SETUP))
  NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
  del notebook.cells[0]
  for cell in notebook.cells:
    if cell.cell_type == "code":
      cell.execution_count = None
      cell.metadata.pop("execution", None)
      cell.outputs = [_reduced(output) for output in cell.outputs if output.get("name") != "stderr"]
  return notebook


def _reduced(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
  """Without counts, and with a picture of few colours."""
  if "execution_count" in output:
    output.execution_count = None
  if "image/png" in output.get("data", {}):
    picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    on_white = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    few = on_white.convert("RGB").quantize(128, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(file := io.BytesIO(), "png", optimize=True)
    output.data = {"image/png": base64.b64encode(file.getvalue()).decode(), DATA: output.data[DATA]}
    output.metadata = {}
  return output


def texts(cell: nbformat.NotebookNode) -> str:
  """What a cell prints and returns."""
  outputs = cell.get("outputs", ())
  return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures(cell: nbformat.NotebookNode) -> list:
  """The data of a cell's pictures."""
  return [output.data[DATA] for output in cell.get("outputs", ()) if DATA in output.get("data", {})]


def differences(stored: nbformat.NotebookNode, new: nbformat.NotebookNode) -> Iterator[str]:
  """How the outputs of two runs of a notebook differ; training drifts, so that numbers agree roughly."""
  for number, (before, after) in enumerate(zip(stored.cells, new.cells, strict=True)):
    shown, printed = (TIME.sub("#", texts(cell)) for cell in (before, after))
    found = page_code.differences(shown, printed)
    if len(pictures(before)) != len(pictures(after)):
      found.append(f"{len(pictures(before))} pictures are stored and {len(pictures(after))} drawn")
    for old, made in zip(pictures(before), pictures(after), strict=False):
      found += _of_pictures(old, made)
    yield from (f"cell {number}: {text}" for text in found)


def _of_pictures(stored: list, new: list) -> Iterator[str]:
  if len(stored) != len(new):
    yield f"{len(stored)} axes are stored and {len(new)} drawn"
  for before, after in zip(stored, new, strict=False):
    if before["labels"] != after["labels"]:
      yield f"labels {before['labels']} are stored and {after['labels']} drawn"
    timed = any(TIME.search(f"1 {label}") for label in before["labels"])
    for kind in ("x", "y", "images"):  # each with a span of its own
      olds, news = ([*_numbers(_values(part, kind))] for part in (before, after))
      if len(olds) != len(news):
        yield f"{len(olds)} numbers of {kind} are stored and {len(news)} drawn"
      span = max(olds, default=0) - min(olds, default=0)
      far = [(a, b) for a, b in zip(olds, news, strict=False) if not abs(a - b) <= 0.3 * abs(a) + 0.1 * span]
      if far and not timed:
        yield f"{len(far)} of {len(olds)} numbers of {kind} differ, such as {far[0]}"


def _values(part: dict, kind: str) -> list:
  return part["images"] if kind == "images" else [line["xy".index(kind)] for line in part["lines"]]


def _numbers(values: object) -> Iterator[float]:
  """The numbers of nested lists; what is not finite is left out."""
  if isinstance(values, list):
    for value in values:
      yield from _numbers(value)
  elif values is not None and math.isfinite(values):
    yield values


def store(path: pathlib.Path) -> None:
  """Runs a notebook and stores its outputs in it."""
  notebook = execute(path)
  for number, cell in enumerate(notebook.cells):
    cell.id = f"cell-{number}"  # nbformat draws new ones for a cell without
  nbformat.write(notebook, path)


if __name__ == "__main__":
  for name in (argument for argument in sys.argv[1:] if argument != "--write"):
    file = pathlib.Path(name)
    if "--write" in sys.argv:
      store(file)
    else:
      print(*differences(nbformat.read(file, as_version=4), execute(file)), sep="\n")
