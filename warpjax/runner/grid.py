"""A grid of settings: each point is a run in a sub-directory; resumable, with a table and a picture."""

from __future__ import annotations

import itertools
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from warpjax.runner import origins, run, workdir
from warpjax.runner.config import registry, settings
from warpjax.runner.machine import hosts
from warpjax.runner.plots import canvas
from warpjax.runner.reporting import tables
from warpjax.runner.reporting.writers import Writer

PICTURE = "sweep.png"
Axes = dict[str, list[Any]]


def axes_of(sweeps: Sequence[str]) -> Axes:
  """The values of each setting of a grid, as text.

  Args:
    sweeps: The axes, each `KEY=VALUE,VALUE`; a value with commas must be in parentheses.

  Returns:
    The values by setting.

  Raises:
    ValueError: For text that is no such axis, or a repeated key.

  Example:
    >>> axes_of(["inner.num_steps=1,5", "network.features=(40,40),(8,)"])
    {'inner.num_steps': ['1', '5'], 'network.features': ['(40,40)', '(8,)']}
  """
  axes: Axes = {}
  for sweep in sweeps:
    key, equals, text = sweep.partition("=")
    values = [value.strip() for value in re.findall(r"\([^)]*\)|[^,]+", text) if value.strip()]
    if not equals or not values:
      raise ValueError(f"--sweep must be KEY=VALUE,VALUE, such as inner.learning_rate=0.01,0.02; got {sweep!r}.")
    if key in axes:
      raise ValueError(f"--sweep gives {key} twice; put its values in one list.")
    axes[key] = list(dict.fromkeys(values))
  return axes


def points(sweeps: Sequence[str]) -> dict[str, list[str]]:
  """The points of a grid, each a list of `KEY=VALUE` for `settings.with_overrides`, by the name of its folder.

  Args:
    sweeps: As for `axes_of`.

  Returns:
    The points; the last axis varies fastest.

  Raises:
    ValueError: As `axes_of`, and for two points that would have the same folder.

  Example:
    >>> points(["inner.num_steps=1,5", "network.features=(40,40),(8,)"])["inner.num_steps=1+network.features=40x40"]
    ['inner.num_steps=1', 'network.features=(40,40)']
  """
  named: dict[str, list[str]] = {}
  for values in itertools.product(*([f"{key}={value}" for value in each] for key, each in axes_of(sweeps).items())):
    name = "+".join(map(_name, values))
    if name in named:
      raise ValueError(f"--sweep gives both {' '.join(named[name])} and {' '.join(values)} the folder {name}.")
    named[name] = list(values)
  return named


def train(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  sweeps: Sequence[str],
  seeds: Sequence[int] = (),
  *,
  init: origins.InitFrom | None = None,
  writers: Sequence[str | Writer] = (),
  **arguments: Any,
) -> dict[str, Any]:
  """Trains and evaluates every point, each with every seed.

  The folder of a point is `directory/KEY=VALUE`, or `directory/KEY=VALUE+KEY=VALUE` with two axes. Characters of a
  value that a shell would split or that need quotes are replaced: `network.features=(4,4)` is in
  `directory/network.features=4x4`.

  A grid can be continued with more values, axes or seeds. Finished points are only read.

  Args:
    config: Nested dicts, as `load_config` returns them.
    directory: The workdir.
    sweeps: As for `axes_of`.
    seeds: Training seeds; empty for that of the config.
    init: As for `run.train_and_evaluate`.
    writers: As for `run.train_and_evaluate`.
    **arguments: As for `run.check`.

  Returns:
    The contents of `result.json`, with the result of each point in `runs`.

  Raises:
    Interrupted: If a signal stopped training.
    ValueError: For a bad axis or setting, or a folder of another run or grid, before anything is trained.
  """
  path, named = pathlib.Path(directory), points(sweeps)
  configs = {name: _of(config, point) for name, point in named.items()}
  whole = _whole(config, configs.values(), axes_of(sweeps), seeds)
  finished = run.result_of(path, whole, init)
  if finished is not None and finished.get("sweep") == whole["sweep"]:
    return dict(finished)
  for name, one in configs.items():
    run.check(one, path / name, **arguments)
  with run.locked(path):
    hosts.from_first(lambda: _prepare(path, whole))
    results = []
    for index, (name, one) in enumerate(configs.items(), 1):
      hosts.say(f"[{index}/{len(configs)}] {' '.join(named[name])}", error=True)  # --json has the output to itself
      each = {"init": init, "writers": writers, **arguments}
      if seeds:
        results.append(run.sweep(one, path / name, seeds, **each))
      else:
        results.append(run.train_and_evaluate(one, path / name, **each))
      init = init or origins.of_result(results[0])  # a resumed command need not repeat it
    return hosts.from_first(lambda: _written(path, whole, named, results))


def table(result: Mapping[str, Any]) -> str:
  """A line for each point, with its settings and the metric and interval, and a line on what the interval is of."""
  keys = list(result["runs"][0]["settings"])
  lines = [[*keys, result["metric"], "+/-"]]
  lines += [[*each["settings"].values(), _number(each["mean"]), _number(each["ci95"])] for each in result["runs"]]
  over = "seeds" if "seeds" in result["runs"][0] else "test tasks"
  return f"{tables.aligned(lines)}\n+/- is half of the 95% interval over the {over}."


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
  """The config of a point, as `settings.load_config` would make it."""
  one = settings.with_overrides(settings.without_published(config, point), point)
  return settings.with_modules(one, registry.user_modules(one))


def _whole(
  config: Mapping[str, Any], configs: Iterable[Mapping[str, Any]], axes: Axes, seeds: Sequence[int]
) -> dict[str, Any]:
  """The grid's own config: the settings that its points share, the modules of all, and the axes as `sweep`."""
  if seeds and "seed" in axes:
    raise ValueError("--sweep=seed=... and --seeds both give seeds; use one of them.")
  modules = {name: origin for each in (config, *configs) for name, origin in each.get("modules", {}).items()}
  shared = settings.with_modules(settings.resolved(config), modules)
  if not seeds:
    return {**shared, "sweep": axes}
  return {key: value for key, value in shared.items() if key != "seed"} | {"sweep": {**axes, "seed": list(seeds)}}


def _prepare(path: pathlib.Path, whole: Mapping[str, Any]) -> None:
  """`workdir.prepare`, where the axes, values and seeds may be more than before."""
  before = workdir.read_json(path / workdir.CONFIG) or {}
  known = before.get("sweep", {})
  if known and all(set(values) <= set(whole["sweep"].get(key, ())) for key, values in known.items()):
    compared = settings.with_modules({**whole, "sweep": known}, before.get("modules", {}))
  else:
    compared = dict(whole)
  workdir.prepare(path, compared, settings.resolved)
  workdir.write_json(path / workdir.CONFIG, whole)


def _written(
  path: pathlib.Path,
  whole: Mapping[str, Any],
  named: Mapping[str, Sequence[str]],
  results: Sequence[Mapping[str, Any]],
) -> Any:
  """Writes the picture and `result.json`, and reads the latter."""
  runs = [
    {"name": name, "settings": dict(pair.split("=", 1) for pair in point), **_short(result)}
    for (name, point), result in zip(named.items(), results, strict=True)
  ]
  combined = {key: whole[key] for key in ("experiment", "method", "sweep")}
  combined |= {"metric": runs[0]["metric"], "runs": runs}
  draw(combined, path / PICTURE)
  workdir.write_json(path / workdir.RESULT, origins.recorded(combined, origins.of_sweep(results)))
  return workdir.read_json(path / workdir.RESULT)


def _name(pair: str) -> str:
  """`KEY=VALUE` without characters that a shell, a list with commas or a path would split.

  Example:
    >>> _name("network.features=(4, 4)"), _name("inner.rule=my_method:a")
    ('network.features=4x4', 'inner.rule=my_method.a')
  """
  key, _, value = pair.partition("=")
  value = re.sub(r"\s*,\s*", "x", value.strip("()[], ")).replace(":", ".")
  return f"{key}={re.sub(r'[^a-zA-Z0-9_.+-]', '_', value)}"


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
  kept = ("metric", "mean", "ci95", "num_tasks", "seed", "seeds", "num_diverged", "selected", "wall_seconds")
  return {key: result[key] for key in kept if key in result}


def _number(value: float | None) -> str:
  return "undefined" if value is None else f"{value:.4g}"
