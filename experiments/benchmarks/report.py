"""Results as a CSV file, a printed table and pictures."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from warpjax.runner.plots import canvas
from warpjax.runner.reporting import tables

Row = Mapping[str, Any]

COLUMNS = (
  *("mode", "case", "method", "block", "axis", "problem", "ways", "shots", "queries", "inner_steps", "width"),
  *("tasks", "task_chunk", "dtype", "devices", "num_params", "gradients", "hvps", "cosine", "norm_ratio"),
  *("relative_error", "temp_bytes", "peak_bytes", "flops", "seconds", "seconds_low", "seconds_high", "ratio"),
  *("ratio_low", "ratio_high", "agrees", "matmul_fraction", "compile_seconds", "meta_steps_per_second", "version"),
  "remark",
)


def write_csv(path: pathlib.Path, rows: Iterable[Row]) -> None:
  """One line a row; a column that a row has not is empty.

  Raises:
    ValueError: for a key that is no column.
  """
  with path.open("w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)


def table(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> str:
  """The rows as text, without the columns that are the same everywhere.

  Example:
    >>> print(table([{"method": "mixed", "cosine": 1.0, "tasks": 4}, {"method": "leap", "cosine": 0.5, "tasks": 4}]))
    method  cosine
    mixed   1
    leap    0.5
  """
  kept = [c for c in columns if c == "method" or len({str(row.get(c)) for row in rows}) > 1]
  lines = [kept, *([_cell(row.get(column)) for column in kept] for row in rows)]
  return tables.aligned(lines)


def _cell(value: Any) -> str:
  return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_accuracy(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """A picture for each case and block: error, cosine and norm ratio against gradients and Hessian-vector products."""
  paths = []
  for case, block in dict.fromkeys((row["case"], row["block"]) for row in rows):
    mine = [row for row in rows if (row["case"], row["block"]) == (case, block)]
    figure, grid = _figure(3)
    for axes, column in zip(grid, ("relative_error", "cosine", "norm_ratio"), strict=True):
      for index, (name, points) in enumerate(_by_method(mine)):
        cost = [point["gradients"] + point["hvps"] for point in points]
        axes.plot(cost, [point[column] for point in points], label=name, **_style(index))
      axes.set(xscale="log", xlabel="gradients + Hessian-vector products, one task", title=column.replace("_", " "))
      axes.set_yscale("linear" if column == "cosine" else "log")
    figure.suptitle(f"{case}: meta-gradient of {block}, each point a number of inner steps")
    paths.append(_save(figure, grid, folder / f"accuracy_{case}_{block}.png"))
  return paths


def draw_memory(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Temporaries against inner steps, and the peak of a process where it was measured."""
  columns = [c for c in ("temp_bytes", "peak_bytes") if any(row.get(c) for row in rows)]
  figure, grid = _figure(len(columns))
  for axes, column in zip(grid, columns, strict=True):
    _lines(axes, rows, "inner_steps", column, lambda value: value / 2**20)
    axes.set(xlabel="inner steps", ylabel="MiB")
    axes.set_title("temporaries, as planned" if column == "temp_bytes" else "peak of a process")
  return [_save(figure, grid, folder / "memory.png")]


def draw_scaling(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Seconds of a meta-step against each axis."""
  axes_names = list(dict.fromkeys(row["axis"] for row in rows))
  figure, grid = _figure(len(axes_names))
  for axes, axis in zip(grid, axes_names, strict=True):
    column = "num_params" if axis == "width" else axis
    _lines(axes, [row for row in rows if row["axis"] == axis], column, "seconds")
    axes.set(xlabel="parameters" if axis == "width" else axis.replace("_", " "), ylabel="seconds a meta-step")
  return [_save(figure, grid, folder / "scaling.png")]


def draw_speed(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """A bar for each row, named by what differs from the first, in a colour for each method."""
  figure, (axes,) = _figure(1, height=1.2 + 0.25 * len(rows))
  names = [c for c in COLUMNS[: COLUMNS.index("num_params")] if c != "method"]
  changes = [[c for c in names if row.get(c) != rows[0].get(c)] for row in rows]
  labels = [
    ", ".join([row["method"], *(f"{c.replace('_', ' ')} {row[c]}" for c in changed)])
    for row, changed in zip(rows, changes, strict=True)
  ]
  methods = list(dict.fromkeys(row["method"] for row in rows))
  colours = [f"C{methods.index(row['method']) % 10}" for row in rows]
  axes.barh(range(len(rows)), [row["meta_steps_per_second"] for row in rows], color=colours)
  axes.set_yticks(range(len(rows)), labels, fontsize=7)
  axes.invert_yaxis()
  axes.set(xlabel="meta-steps per second")
  axes.grid(alpha=0.3, axis="x")
  return [_save(figure, [], folder / "speed.png")]


def _lines(axes: Any, rows: Sequence[Row], x: str, y: str, scale: Callable[[Any], Any] = lambda value: value) -> None:
  """Draws a line for each method on logarithmic axes, with the x that were measured as their ticks."""
  from matplotlib import ticker

  rows = [row for row in rows if row.get(y)]
  values = sorted({row[x] for row in rows})
  axes.set(xscale="log", yscale="log")
  axes.set_xticks(values, [f"{value:,}" for value in values])
  axes.set_xticks([], minor=True)
  axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axes.yaxis.set_major_formatter("{x:g}")
  axes.yaxis.set_minor_formatter(ticker.NullFormatter())
  for index, (name, points) in enumerate(_by_method(rows)):
    axes.plot([point[x] for point in points], [scale(point[y]) for point in points], label=name, **_style(index))


def _by_method(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
  return [(name, [row for row in rows if row["method"] == name]) for name in dict.fromkeys(r["method"] for r in rows)]


def _style(index: int) -> dict[str, Any]:
  """Told apart in black and white too."""
  marker, line = "osD^vPX*<>"[index % 10], ("-", "--", ":")[index // 10 % 3]
  return {"marker": marker, "linestyle": line, "markersize": 4, "linewidth": 1.2, "color": f"C{index % 10}"}


def _figure(panels: int, height: float = 4.2) -> tuple[Any, Any]:
  """Up to three panels side by side, more in two rows."""
  rows = 2 if panels > 3 else 1
  columns = -(-panels // rows)
  size = (5.2 * columns + 1.8, height * rows)
  figure, grid = canvas.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
  for spare in grid.flat[panels:]:
    spare.remove()
  return figure, grid.flat[:panels]


def _save(figure: Any, grid: Any, path: pathlib.Path) -> pathlib.Path:
  for axes in grid:
    axes.grid(alpha=0.3)
  if len(grid):
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
  figure.savefig(path, dpi=130)
  return path
