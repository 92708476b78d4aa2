"""The picture and the record of the bilevel benchmark."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks import report

Row = Mapping[str, Any]
SHOWN = {
  "accuracy": "accuracy",
  "best_accuracy": "best accuracy of all steps",
  "f1": "F1 of the flags",
  "val_loss": "validation loss",
  "relative_error": "relative error",
  "moved": "largest change of a weight",
  "outer_steps": "outer steps",
  "gradients": "gradients",
  "hvps": "hvps",
  "seconds": "CPU seconds",
  "temp_bytes": "temporaries, bytes",
}
PANELS = [name for name in SHOWN if name not in ("best_accuracy", "outer_steps", "gradients", "hvps")]
OF_ONE_RATE = ("seconds", "temp_bytes")  # of a program that has several rates, they are those of all of them
TITLE = "Bilevel problems by estimator"
TEXT = (
  "Means over seeds. `quadratic` and `small` are at equal oracle calls; the others have 20 outer steps, whose oracle "
  "calls are in the table. The outer step is Adam's. Of the rates in the command, or in the config, it has the one "
  "with the least validation loss on the first seed, whose runs are one vmapped program. Accuracy is that of test "
  "images after training afresh with the learned weights. The best accuracy of all steps of that training is what the "
  "released codes report. F1 is that of the sign of the weights against the replaced labels. `released` has the "
  "released codes' labels, of which some are replaced by themselves, and their outer step, SGD, whose rate is 1e-3; "
  "every rate is a row. Gradients and Hessian-vector products are those of all outer steps. Seconds are CPU seconds "
  "without compilation, of a run with one rate where there is one. The quadratic is the same under every seed; its "
  "validation loss is that above the minimum."
)


def draw(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """A picture for each problem, with a panel for each number: the seeds as points, their mean as a line."""
  from warpjax.runner.plots import canvas

  paths = []
  for case, group in itertools.groupby(rows, key=lambda row: row["case"]):
    mine = _by_line(list(group))
    columns = [column for column in PANELS if column in next(iter(mine.values()))[0]]
    size = (1 + 2.6 * len(columns), 1 + 0.28 * len(mine))
    figure, grid = canvas.subplots(1, len(columns), figsize=size, squeeze=False, sharey=True, layout="constrained")
    for axes, column in zip(grid.flat, columns, strict=True):
      values = [_values(each, column) for each in mine.values()]
      for place, found in enumerate(values):
        axes.plot(found, [place] * len(found), "o", color="C0", alpha=0.6, markersize=4)
        axes.plot(sum(found) / len(found), place, "|", color="C1", markersize=12, markeredgewidth=2)
      axes.set(title=SHOWN[column], xscale="log" if _spans_decades(sum(values, [])) else "linear")
      axes.grid(alpha=0.3)
    grid[0, 0].set_yticks(range(len(mine)), list(mine), fontsize=7)
    grid[0, 0].invert_yaxis()
    paths.append(folder / f"bilevel_{case}.png")
    canvas.save(figure, paths[-1])
  return paths


def _by_line(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """The rows of each estimator, and of each rate where there are several, by what a picture calls them."""
  lines: dict[tuple[str, float], list[Row]] = {}
  for row in rows:
    lines.setdefault((row["method"], row["outer_rate"]), []).append(row)
  several = len(lines) > len({name for name, _ in lines})
  return {f"{name}, {rate:g}" if several else name: each for (name, rate), each in lines.items()}


def _values(rows: Sequence[Row], column: str) -> list[float]:
  alone = [row for row in rows if row.get("together", 1) == 1] if column in OF_ONE_RATE else []
  return [row[column] for row in alone or rows]


def _spans_decades(values: Sequence[float]) -> bool:
  finite = [value for value in values if math.isfinite(value)]
  return min(finite, default=0) > 0 and max(finite) > 100 * min(finite)


def record(
  rows: Sequence[Row], about: Mapping[str, Any], command: str, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
  """The record of the benchmark: a row for each problem and estimator, means over the seeds.

  Args:
    rows: As `bilevel.rows` yields them.
    about: What was measured on, as `experiments.benchmark.machine` says it.
    command: The command line.
    before: An earlier record of this machine, whose other problems stay; or None.

  Returns:
    A JSON object. `measured` holds the rows, each with the commit and the date of its record, and `commands` the
    command of each problem.
  """
  stamp, earlier = ("commit", "date"), before or {"measured": [], "command": ""}
  fresh = {row["case"] for row in rows}
  kept = [{**{key: earlier[key] for key in stamp}, **row} for row in earlier["measured"] if row["case"] not in fresh]
  measured = [*kept, *({**row, **{key: about[key] for key in stamp}} for row in rows)]
  commands = {row["case"]: earlier.get("commands", {}).get(row["case"], earlier["command"]) for row in kept}
  commands |= dict.fromkeys((row["case"] for row in rows), command)
  columns = tuple(SHOWN)
  titles = ("problem", "estimator", "seeds", "outer rate", *(c.replace("_", " ") for c in columns), "remark")
  lines: dict[tuple[str, str, float], list[Row]] = {}
  for row in measured:
    lines.setdefault((row["case"], row["method"], row["outer_rate"]), []).append(row)
  cells = [_cells(*line, columns, each) for line, each in lines.items()]
  whole = "; ".join(dict.fromkeys(commands.values()))
  return report.record(TITLE, TEXT, titles, cells, about, whole, commands=commands, measured=measured)


def _cells(case: str, name: str, rate: float, columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
  """The line of one estimator."""
  means = [_mean(_values(rows, column)) if column in rows[0] else "" for column in columns]
  return [case, f"`{name}`", str(len(rows)), f"{rate:g}", *means, rows[0]["remark"]]


def _mean(values: Sequence[float]) -> str:
  return f"{sum(values) / len(values):.4g}"
