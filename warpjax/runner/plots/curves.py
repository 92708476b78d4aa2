"""The results of many runs against a setting of their configs, with a curve for each method."""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from warpjax.runner import workdir
from warpjax.runner.config import recipes, settings
from warpjax.runner.plots import canvas, figures
from warpjax.runner.reporting import tables

Runs = dict[str, list[tuple[float, Mapping[str, Any]]]]
"""For each method, pairs of a setting and a result, the smallest setting first."""


def against(directories: Sequence[pathlib.Path], results: Sequence[Mapping[str, Any]], setting: str) -> Runs:
  """Sorts the results of workdirs by method and by a setting of their configs, such as `data.alphabets`.

  Recipes that differ in their size alone are one method (`leap_15_cpu`, `leap_20_cpu`).

  Raises:
    ValueError: For a run whose setting is no number, or two runs of a method with the same number.
  """
  by_method: Runs = {}
  for directory, result in zip(directories, results, strict=True):
    config = settings.completed(workdir.read_json(directory / workdir.CONFIG))
    runs = by_method.setdefault(method(result["method"]), [])
    value = _number(directory, config, setting)
    if value in [other for other, _ in runs]:
      raise ValueError(f"--against={setting}: {directory} and another run of its method have {value:g}.")
    runs.append((value, result))
  return {name: sorted(runs, key=lambda run: run[0]) for name, runs in by_method.items()}


def method(recipe: str) -> str:
  """A recipe's method.

  Example:
    >>> method("warp_leap_offline_15_cpu"), method("leap_cpu"), method("maml_5shot")
    ('warp_leap_offline', 'leap', 'maml_5shot')
  """
  return re.sub(r"(_\d+)?_cpu$", "", recipe)


def _number(directory: pathlib.Path, config: Mapping[str, Any], setting: str) -> float:
  value: Any = config
  for key in setting.split("."):
    if not isinstance(value, Mapping) or key not in value:
      where = value if isinstance(value, Mapping) else {}
      raise ValueError(f"--against={setting}: the config of {directory} has no {key!r}{recipes.near(key, where)}")
    value = value[key]
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise ValueError(f"--against={setting} must be a number in every config; {directory} has {value!r}.")
  return float(value)


def draw(runs: Runs, setting: str, output: str | os.PathLike[str]) -> None:
  """Draws the results with their intervals, and the published numbers as crosses of the same colour."""
  figure, axes = canvas.subplots(figsize=(7, 4.5), layout="constrained")
  metric = next(iter(runs.values()))[0][1]["metric"]
  for name, points in runs.items():
    x, measured = [value for value, _ in points], [result for _, result in points]
    y, ci95 = ([math.nan if result[key] is None else result[key] for result in measured] for key in ("mean", "ci95"))
    line = axes.errorbar(x, y, ci95, marker="o", markersize=4, capsize=3, label=name)
    said = [(value, result["published"]["number"]) for value, result in points if result.get("published")]
    if said:
      axes.plot(*zip(*said, strict=True), "x--", color=line[0].get_color(), alpha=0.6)
  axes.set(xlabel=setting, ylabel=metric, title="test tasks; bars: 95%, crosses: published")
  axes.grid(alpha=0.3)
  figure.legend(loc="outside lower center", ncols=3, fontsize=8)
  canvas.save(figure, output)


def table(runs: Runs, setting: str) -> str:
  """The results in Markdown: a line for each method, a column for each value of the setting."""
  values = sorted({value for points in runs.values() for value, _ in points})
  cells = {
    name: {value: figures.cell(result["mean"], result["ci95"]) for value, result in points}
    for name, points in runs.items()
  }
  rows = [[name, *(row.get(value, "") for value in values)] for name, row in cells.items()]
  return tables.markdown([setting, *(f"{value:g}" for value in values)], rows)
