"""A grid of settings: each point is a run in a sub-directory; resumable, with a table and a picture."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warpjax.runner import run, workdir
from warpjax.runner.config import settings
from warpjax.runner.machine import hosts
from warpjax.runner.plots import canvas
from warpjax.runner.reporting import tables

PICTURE = "sweep.png"


def points(sweeps: Sequence[str]) -> list[list[str]]:
  """The points of a grid, each a list of `KEY=VALUE` for `settings.with_overrides`.

  Args:
    sweeps: The axes, each `KEY=VALUE,VALUE`; a value with commas must be in parentheses.

  Returns:
    The points; the last axis varies fastest.

  Raises:
    ValueError: For text that is no such axis, or a repeated key.

  Example:
    >>> points(["inner.num_steps=1,5", "network.features=(40,40),(8,)"])[1]
    ['inner.num_steps=1', 'network.features=(8,)']
  """
  axes = []
  for sweep in sweeps:
    key, equals, values = sweep.partition("=")
    each = [value for value in re.findall(r"\([^)]*\)|[^,]+", values) if value.strip()]
    if not equals or not each:
      raise ValueError(f"--sweep must be KEY=VALUE,VALUE, such as inner.learning_rate=0.01,0.02; got {sweep!r}.")
    axes.append([f"{key}={value.strip()}" for value in each])
  keys = [axis[0].partition("=")[0] for axis in axes]
  if twice := [key for key in dict.fromkeys(keys) if keys.count(key) > 1]:
    raise ValueError(f"--sweep gives {twice[0]} twice; put its values in one list.")
  return [list(point) for point in itertools.product(*axes)]


def train(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  sweeps: Sequence[str],
  seeds: Sequence[int] = (),
  **arguments: Any,
) -> dict[str, Any]:
  """Trains and evaluates every point in `directory/KEY=VALUE,...`, each with every seed.

  Args:
    config: Nested dicts, as `experiment.build` takes them.
    directory: The workdir; finished points are only read.
    sweeps: As for `points`.
    seeds: Training seeds; empty for that of the config.
    **arguments: As for `run.train_and_evaluate`.

  Returns:
    The contents of `result.json`, with the result of each point in `runs`.

  Raises:
    Interrupted: If a signal stopped training.
    ValueError: For a bad axis or setting, before anything is trained.
  """
  whole, runs = pathlib.Path(directory), []
  configs = {_name(point): _of(config, point) for point in points(sweeps)}
  for name, one in configs.items():
    if seeds:
      result = run.sweep(one, whole / name, seeds, **arguments)
    else:
      result = run.train_and_evaluate(one, whole / name, **arguments)
    runs.append({"name": name, "settings": dict(pair.split("=", 1) for pair in name.split(";")), **_short(result)})
  first = next(iter(configs.values()))
  combined = {"experiment": first["experiment"], "method": first["method"], "metric": runs[0]["metric"], "runs": runs}

  def write() -> Any:
    draw(combined, whole / PICTURE)
    workdir.write_json(whole / workdir.RESULT, combined)
    return workdir.read_json(whole / workdir.RESULT)

  return hosts.from_first(write)


def table(result: Mapping[str, Any]) -> str:
  """A line for each point, with its settings and the metric and interval."""
  keys = list(result["runs"][0]["settings"])
  lines = [[*keys, result["metric"], "+/-"]]
  lines += [[*each["settings"].values(), _number(each["mean"]), _number(each["ci95"])] for each in result["runs"]]
  return tables.aligned(lines)


def draw(result: Mapping[str, Any], output: pathlib.Path) -> None:
  """Draws the metric along the first axis, a line for each combination of the others."""
  figure, axes = canvas.subplots(figsize=(6, 4), layout="constrained")
  first, lines = next(iter(result["runs"][0]["settings"])), dict[str, list[Mapping[str, Any]]]()
  for each in result["runs"]:
    rest = ", ".join(f"{key}={value}" for key, value in each["settings"].items() if key != first)
    lines.setdefault(rest, []).append(each)
  names = list(dict.fromkeys(each["settings"][first] for each in result["runs"]))
  for label, runs in lines.items():
    x = [names.index(each["settings"][first]) for each in runs]
    y, error = (np.array([each[key] for each in runs], float) for key in ("mean", "ci95"))
    axes.errorbar(x, y, yerr=error, marker="o", capsize=3, label=label or None)
  axes.set(xlabel=first, ylabel=result["metric"], title=f"{result['experiment']}:{result['method']}")
  axes.set_xticks(range(len(names)), names)
  axes.grid(alpha=0.3)
  if len(lines) > 1:
    axes.legend(fontsize=8)
  canvas.save(figure, output)


def _of(config: Mapping[str, Any], point: Sequence[str]) -> dict[str, Any]:
  return settings.with_overrides(settings.without_published(config, point), point)


def _name(point: Sequence[str]) -> str:
  return ";".join(point)


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
  kept = ("metric", "mean", "ci95", "num_tasks", "seed", "seeds", "num_diverged", "selected", "wall_seconds")
  return {key: result[key] for key in kept if key in result}


def _number(value: float | None) -> str:
  return "undefined" if value is None else f"{value:.4g}"
