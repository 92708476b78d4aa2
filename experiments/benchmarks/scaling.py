"""How time and bytes of a meta-step grow with its sizes, one at a time, and with devices."""

from __future__ import annotations

import itertools
import multiprocessing
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from experiments.benchmarks import cost, report
from experiments.benchmarks.cost import Row, Setting
from experiments.benchmarks.estimators import Table, chosen
from experiments.benchmarks.report import measured_ticks, style
from warpjax.runner.config import schema
from warpjax.runner.plots import canvas

FROM = {"tasks": 32, "inner_steps": 16, "width": 64}
"""The value from which the slope of an axis is fitted; below it, fixed costs are a large share of a meta-step."""
WHAT = {"seconds": "seconds a meta-step", "temp_bytes": "temporaries, MiB", "compile_seconds": "compilation, seconds"}
UNITS = {"temp_bytes": 2**20}
NAMES = {"width": "filters"}
COLUMNS = ("from", "to", "method", "time", "linear within", "temporaries", "compilation")
TITLE = "What a meta-step costs by tasks, inner steps, filters and devices"


def rows(
  methods: dict, setting: dict, axes: dict, repeats: int, seconds: float = 2.0, only: Sequence[str] = ()
) -> Iterator[Row]:
  """One axis after another, the rest as in the setting.

  On a CPU each number of devices has a process of its own. Values that do not divide over the devices, or that need
  more devices than there are, are left out and named.

  Args:
    methods: Tables with `inner` and `meta_gradient`.
    setting: The sizes.
    axes: The values of each axis.
    repeats: Meta-steps timed.
    seconds: Time limit of the repeats.
    only: Names of methods; all if empty.
  """
  base, methods = schema.call("config.setting", setting, Setting), dict(chosen(methods, only))
  for axis, value in ((axis, value) for axis, values in axes.items() for value in values):
    each = base._replace(**{axis: value})
    available = each.devices if jax.default_backend() == "cpu" else jax.device_count()
    if each.devices > available or each.tasks % each.devices:
      print(f"Left out: {axis} {value}, with {jax.device_count()} devices and {each.tasks} tasks.")
      continue
    for name, method in methods.items():
      yield {"method": name, "axis": axis, **_measured(each, method, repeats=repeats, seconds=seconds)}


def _measured(setting: Setting, method: Table, **timing: Any) -> Row:
  if setting.devices <= jax.device_count():
    return cost.meta_step(setting, method, **timing)
  new = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, new, initializer=_force_devices, initargs=(setting.devices,)) as pool:
    return pool.submit(cost.meta_step, setting, method, **timing).result()


def _force_devices(count: int) -> None:
  jax.config.update("jax_num_cpu_devices", count)


def slope(points: Sequence[tuple[float, float]]) -> float:
  """The exponent of the power law that fits best: 1 where y is proportional to x, 0 where it is constant.

  Example:
    >>> round(slope([(1, 2.0), (2, 8.0), (4, 32.0)]), 6)
    2.0
  """
  x, y = np.log(np.array(points, float)).T
  return float(np.polyfit(x, y, 1)[0])


def deviation(points: Sequence[tuple[float, float]]) -> float:
  """The largest relative deviation of y over x from its median: 0 if y is proportional to x."""
  x, y = np.array(points, float).T
  each = y / x
  return float(np.max(np.abs(each / np.median(each) - 1)))


def points(rows: Sequence[Mapping[str, Any]], axis: str, method: str, column: str) -> list[tuple[float, float]]:
  """The points to which a slope is fitted, `(value of the axis, value of the column)`."""
  mine = [row for row in rows if (row["axis"], row["method"]) == (axis, method)]
  return [(row[axis], row[column]) for row in mine if row[axis] >= FROM.get(axis, 1) and row[column] > 0]


def slopes(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  """The cells of a table: for each axis and method the exponents of time, temporaries and compile time."""
  lines = []
  for axis, method in dict.fromkeys((row["axis"], row["method"]) for row in rows):
    found = {column: points(rows, axis, method, column) for column in WHAT}
    if min(map(len, found.values())) < 2:
      continue
    first, last = (f"{found['seconds'][i][0]:,} {_name(axis)}" for i in (0, -1))
    within = f"{deviation(found['seconds']):.0%}" if axis == "tasks" else ""
    lines.append([first, last, method, said(axis, "seconds", found["seconds"]), within])
    lines[-1] += [said(axis, column, found[column]) for column in ("temp_bytes", "compile_seconds")]
  return lines


def said(axis: str, column: str, points: Sequence[tuple[float, float]]) -> str:
  """The slope of a line; for time by devices, which levels off at the number of cores, the largest speedup."""
  if axis == "devices" and column == "seconds":
    devices, fastest = min(points, key=lambda point: point[1])
    return f"{points[0][1] / fastest:.2f} times as fast with {devices}"
  return f"{round(slope(points), 2) + 0.0:.2f}"  # no -0.00


def _name(axis: str) -> str:
  return NAMES.get(axis, axis.replace("_", " "))


def record(rows: Sequence[Row], about: Mapping[str, Any], command: str, before: Any = None) -> dict[str, Any]:
  """The record of the slopes on this machine; `before`, an earlier record of it, is replaced."""
  del before
  kept = ("ways", "shots", "queries", "inner_steps", "width", "tasks")
  text = (
    "Exponents of power laws: 1 is proportional, 0 is constant. Temporaries are those that XLA plans for one device. "
    "`linear within` is the largest deviation of the time of a task from its median."
  )
  measured = [{key: row[key] for key in ("axis", "method", "devices", *kept, *WHAT)} for row in rows]
  return report.record(TITLE, text, COLUMNS, slopes(rows), about, command, measured=measured)


def draw(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Seconds, temporaries and compile time against each axis, the slope of each line in the legend."""
  axes = list(dict.fromkeys(row["axis"] for row in rows))
  methods = list(dict.fromkeys(row["method"] for row in rows))
  size = (4.4 * len(axes), 3.4 * len(WHAT))
  figure, grid = canvas.subplots(len(WHAT), len(axes), figsize=size, squeeze=False, layout="constrained")
  for (line, column), (place, axis) in itertools.product(enumerate(WHAT), enumerate(axes)):
    panel = grid[line, place]
    shown = [row for row in rows if row["axis"] == axis]
    measured_ticks(panel, sorted({row[axis] for row in shown}))
    for index, method in enumerate(methods):
      mine = [(row[axis], row[column] / UNITS.get(column, 1)) for row in shown if row["method"] == method]
      fitted = points(rows, axis, method, column)
      label = f"{method}: {said(axis, column, fitted)}" if len(fitted) > 1 else method
      panel.plot(*zip(*mine, strict=True), label=label, **style(index))
    begins = f", slopes from {FROM[axis]} on" if axis in FROM else ""
    panel.set(xlabel=f"{_name(axis)}{begins}", ylabel=WHAT[column])
    low, high = panel.get_ylim()
    panel.set_ylim(low / 3, 3 * high)  # a constant looks constant, and the legend has room
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
  canvas.save(figure, folder / "scaling.png")
  return [folder / "scaling.png"]
