"""Results as a CSV file, a printed table and pictures."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from warpjax.runner.plots import canvas
from warpjax.runner.reporting import tables

Row = Mapping[str, Any]

COLUMNS = (
  *("mode", "case", "method", "block", "axis", "problem", "ways", "shots", "queries", "inner_steps", "width"),
  *("tasks", "task_chunk", "dtype", "devices", "num_params", "gradients", "hvps", "cosine", "norm_ratio"),
  *(
    "relative_error",
    "temp_bytes",
    "predicted_bytes",
    "peak_bytes",
    "flops",
    "seconds",
    "seconds_low",
    "seconds_high",
    "rounds",
  ),
  *("ratio", "ratio_low", "ratio_high", "speedup", "speedup_low", "speedup_high", "agrees", "matmul_fraction"),
  *("compile_seconds", "meta_steps_per_second", "version", "outer_steps", "outer_rate", "seed", "accuracy", "f1"),
  *(
    "val_loss",
    "val_accuracy",
    "best_accuracy",
    "moved",
    "tried",
    "together",
    "remark",
    "layer",
    "operation",
    "kind",
    "whole_seconds",
    "choice",
  ),
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
  """The rows as text, without the columns that are the same everywhere."""
  kept = [c for c in columns if c == "method" or len({str(row.get(c)) for row in rows}) > 1]
  lines = [kept, *([_cell(row.get(column)) for column in kept] for row in rows)]
  return tables.aligned(lines)


def _cell(value: Any) -> str:
  return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class Panel(NamedTuple):
  """Lines over the rows, one for each method: the rows, the columns of x and y, and settings of the axes."""

  rows: Sequence[Row]
  x: str
  y: str
  axes: Mapping[str, Any]


def draw_accuracy(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """A picture for each case and block: error, cosine and norm ratio against gradients and Hessian-vector products."""
  paths, x = [], "gradients + Hessian-vector products, one task"
  rows = [{**row, x: row["gradients"] + row["hvps"]} for row in rows]
  for case, block in dict.fromkeys((row["case"], row["block"]) for row in rows):
    shown = [row for row in rows if (row["case"], row["block"]) == (case, block)]
    panels = [
      Panel(shown, x, column, {"xscale": "log", "yscale": scale, "xlabel": x, "title": column.replace("_", " ")})
      for column, scale in (("relative_error", "log"), ("cosine", "linear"), ("norm_ratio", "log"))
    ]
    title = f"{case}: meta-gradient of {block}, each point a number of inner steps"
    paths.append(_draw(panels, folder / f"accuracy_{case}_{block}.png", title=title))
  return paths


def draw_memory(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Temporaries against inner steps, and the peak of a process where it was measured."""
  titles = {"temp_bytes": "temporaries, as planned", "peak_bytes": "peak of a process"}
  panels = []
  for column, title in titles.items():
    if shown := [{**row, column: row[column] / 2**20} for row in rows if row.get(column)]:
      panels.append(Panel(shown, "inner_steps", column, {"xlabel": "inner steps", "ylabel": "MiB", "title": title}))
  return [_draw(panels, folder / "memory.png", ticks=True)]


def record(
  title: str, text: str, columns: Sequence[str], rows: Sequence[Any], about: Row, command: str, **more: Any
) -> dict[str, Any]:
  """The record of a benchmark on this machine: its table, what was measured on, and when."""
  stamp = {key: about[key] for key in ("date", "commit", "machine", "versions")}
  return {"title": title, "text": text, "command": command, **stamp, "columns": list(columns), "rows": rows, **more}


def draw_speed(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """A bar for each row, named by what differs from the first, in a colour for each method."""
  settings = [c for c in COLUMNS[: COLUMNS.index("num_params")] if c != "method"]
  labels = []
  for row in rows:
    changed = [f"{c.replace('_', ' ')} {row[c]}" for c in settings if row.get(c) != rows[0].get(c)]
    labels.append(", ".join([row["method"], *changed]))
  methods = list(dict.fromkeys(row["method"] for row in rows))
  colours = [f"C{methods.index(row['method']) % 10}" for row in rows]
  values = [row["meta_steps_per_second"] for row in rows]
  return [bars(labels, values, folder / "speed.png", colours, xlabel="meta-steps per second")]


def bars(
  labels: Sequence[str], values: Sequence[float], path: pathlib.Path, colours: Any = "C0", **axes_settings: Any
) -> pathlib.Path:
  """A bar for each value, the first on top."""
  figure, axes = canvas.subplots(figsize=(7, 1.2 + 0.25 * len(values)), layout="constrained")
  axes.barh(range(len(values)), values, color=colours)
  axes.set_yticks(range(len(values)), labels, fontsize=7)
  axes.invert_yaxis()
  axes.set(**axes_settings)
  axes.grid(alpha=0.3, axis="x")
  canvas.save(figure, path)
  return path


def _draw(panels: Sequence[Panel], path: pathlib.Path, *, title: str = "", ticks: bool = False) -> pathlib.Path:
  """Up to three panels in a row, more in two, and one legend; `ticks` are the x that were measured, on log axes."""
  num_rows = 2 if len(panels) > 3 else 1
  num_columns = -(-len(panels) // num_rows)
  size = (5.2 * num_columns + 1.8, 4.2 * num_rows)
  figure, grid = canvas.subplots(num_rows, num_columns, figsize=size, squeeze=False, layout="constrained")
  for axes, panel in zip(grid.flat, panels, strict=False):
    if ticks:
      measured_ticks(axes, sorted({row[panel.x] for row in panel.rows}))
    for index, name in enumerate(dict.fromkeys(row["method"] for row in panel.rows)):
      points = [(row[panel.x], row[panel.y]) for row in panel.rows if row["method"] == name]
      axes.plot(*zip(*points, strict=True), label=name, **style(index))
    axes.set(**panel.axes)
    axes.grid(alpha=0.3)
  for spare in grid.flat[len(panels) :]:
    spare.remove()
  figure.suptitle(title)
  figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
  canvas.save(figure, path)
  return path


def measured_ticks(axes: Any, values: Sequence[int]) -> None:
  """Logarithmic axes with ticks at the x that were measured."""
  axes.set(xscale="log", yscale="log")
  axes.set_xticks(values, [f"{value:,}" for value in values])
  axes.set_xticks([], minor=True)
  plain_ticks(axes.yaxis)


def plain_ticks(axis: Any) -> None:
  """Ticks of a logarithmic axis at 1, 2 and 5 of each decade, as plain numbers."""
  from matplotlib import ticker

  axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  axis.set_major_formatter("{x:g}")
  axis.set_minor_formatter(ticker.NullFormatter())


def style(index: int) -> dict[str, Any]:
  """Told apart in black and white too."""
  marker, line = "osD^vPX*<>"[index % 10], ("-", "--", ":")[index // 10 % 3]
  return {"marker": marker, "linestyle": line, "markersize": 4, "linewidth": 1.2, "color": f"C{index % 10}"}
