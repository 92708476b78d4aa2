"""Pictures and tables of results."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from warpjax import evaluation
from warpjax.runner import workdir
from warpjax.runner.config import settings
from warpjax.runner.plots import canvas
from warpjax.runner.reporting import tables


def draw(
  directories: Sequence[pathlib.Path],
  output: str | os.PathLike[str],
  *,
  results: Sequence[Mapping[str, Any]],
  names: Sequence[str] | None = None,
) -> None:
  """Draws the metric while training and after each inner step on test tasks, a colour for each workdir.

  A sweep is drawn as the mean over its seeds, in a band from the lowest to the highest. The legend has the names, or
  each workdir's experiment and method.
  """
  from matplotlib import ticker

  figure, (left, right) = canvas.subplots(1, 2, figsize=(11, 4), layout="constrained")
  names = names or labels(directories, [f"{result['experiment']}:{result['method']}" for result in results])
  for directory, result, label in zip(directories, results, names, strict=True):
    metric, runs = result["metric"], seeds(directory)
    color = _band(left, *_training(runs, metric), label=label)
    for run in runs:
      val = _logged(run, metric, "val")
      left.plot([row["step"] for row in val], [row[metric] for row in val], "o--", markersize=3, color=color)
    mean, ci95 = np.array(result["per_step"], float), np.array(result.get("per_step_ci95", 0.0), float)
    every = [workdir.read_json(run / workdir.RESULT)["per_step"] for run in runs] if len(runs) > 1 else []
    low, high = (np.min(every, axis=0), np.max(every, axis=0)) if every else (mean - ci95, mean + ci95)
    _band(right, np.arange(len(mean)), mean, low, high, label=label, marker="o", markersize=3)
  left.set(title="training tasks, and validation tasks as points", xlabel="meta-step", ylabel=metric)
  title = "test tasks; band: 95% over tasks, or range over seeds"
  right.set(title=title, xlabel="adaptation step", ylabel=metric)
  # Below both, where it hides no curve.
  figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 4), fontsize=8)
  right.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  for axes in (left, right):
    axes.grid(alpha=0.3)
    if metric == "mse":
      axes.set_yscale("log")
  canvas.save(figure, output)


def seeds(directory: pathlib.Path) -> list[pathlib.Path]:
  """The runs of a sweep, or the workdir itself."""
  return sorted(path.parent for path in directory.glob(f"seed_*/{workdir.RESULT}")) or [directory]


def _training(runs: Sequence[pathlib.Path], metric: str) -> tuple[np.ndarray, ...]:
  """Meta-steps, and the mean, lowest and highest of the runs' smoothed metric there."""
  logged = [_logged(run, metric, "train") for run in runs]
  length = min(map(len, logged))
  values = np.stack([smooth([row[metric] for row in rows[:length]]) for rows in logged])
  return np.array([row["step"] for row in logged[0][:length]]), values.mean(0), values.min(0), values.max(0)


def _logged(run: pathlib.Path, metric: str, split: str) -> list[dict[str, Any]]:
  rows = workdir.read_metrics(run)
  return [row for row in rows if row.get("split", "train") == split and row.get(metric) is not None]


def _band(axes: Any, x: np.ndarray, middle: np.ndarray, low: np.ndarray, high: np.ndarray, **style: Any) -> Any:
  (line,) = axes.plot(x, middle, **style)
  axes.fill_between(x, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
  return line.get_color()


def labels(directories: Sequence[pathlib.Path], names: Sequence[str]) -> list[str]:
  """The names; each name that occurs several times is followed by its directory.

  Example:
    >>> labels([pathlib.Path("runs/a"), pathlib.Path("runs/b"), pathlib.Path("runs/c")], ["maml", "maml", "anil"])
    ['maml (runs/a)', 'maml (runs/b)', 'anil']
  """
  return [f"{name} ({d})" if names.count(name) > 1 else name for d, name in zip(directories, names, strict=True)]


def smooth(values: Sequence[float], points: int = 200) -> np.ndarray:
  """A running mean over windows of `len(values) // points` values."""
  width = max(1, len(values) // points)
  padded = np.concatenate([np.full(width - 1, values[0] if len(values) else 0.0), np.asarray(values, float)])
  return np.convolve(padded, np.ones(width) / width, mode="valid") if len(values) else padded[:0]


def table(results: Sequence[Mapping[str, Any]], *, names: Sequence[str] | None = None, max_columns: int = 11) -> str:
  """The metric after each inner step, a line for each result, with its 95% interval over tasks."""
  longest = max(len(result["per_step"]) for result in results)
  steps = sorted({round(step) for step in np.linspace(0, longest - 1, min(max_columns, longest))})
  lines = [["method", *(f"step {step}" for step in steps)]]
  for name, result in zip(names or [result["method"] for result in results], results, strict=True):
    mean, ci95 = result["per_step"], result.get("per_step_ci95") or [None] * len(result["per_step"])
    cells = [cell(mean[step], ci95[step]) if step < len(mean) else "" for step in steps]
    lines.append([name, *cells])
  return tables.aligned(lines)


def markdown(results: Sequence[Mapping[str, Any]], *, names: Sequence[str] | None = None) -> str:
  """A Markdown table of results, a line for each: the metric, the published number, and the cost."""
  rows = []
  for name, result in zip(names or [result["method"] for result in results], results, strict=True):
    said = result.get("published") or {}
    published = cell(said["number"], said.get("interval") or None) if "number" in said else "-"
    measured, seeds = f"{result['metric']} {cell(result['mean'], result['ci95'])}", len(result.get("seeds", [0]))
    spent = f"{result['num_meta_steps']:,}", f"{result['num_tasks']:,}", str(seeds), f"{result['wall_seconds']:.0f}"
    rows.append((name, measured, published, *spent))
  return tables.markdown(("method", "measured", "published", "meta-steps", "test tasks", "seeds", "seconds"), rows)


def cell(mean: float, ci95: float | None) -> str:
  """A number with its interval, where it has one."""
  return f"{mean:.3f}" if ci95 is None else f"{mean:.3f} +/- {ci95:.3f}"


def paired(directories: Sequence[pathlib.Path], results: Sequence[Mapping[str, Any]]) -> list[str]:
  """Each result minus the first one, over the same test tasks, with the interval of the difference.

  Sweeps over the same seeds are also paired by seed, which includes the variation between trainings.
  """
  arrays = [np.load(directory / workdir.PER_TASK)[:, -1] for directory in directories]
  tasks = [_test_tasks(directory, result) for directory, result in zip(directories, results, strict=True)]
  names = labels(directories, [result["method"] for result in results])
  lines = []
  for name, result, array, of in list(zip(names, results, arrays, tasks, strict=True))[1:]:
    difference = f"{name} - {names[0]}"
    if of == tasks[0] and array.shape == arrays[0].shape:
      values, distinct = array - arrays[0], result.get("num_distinct")
      mean, ci95 = evaluation.over_tasks(values, distinct)  # a task that diverged for either is left out
      count = distinct or np.isfinite(values).sum()
      lines.append(f"{difference}: {mean:+.4f} +/- {ci95:.4f} ({result['metric']}, paired over {count} test tasks)")
    else:
      lines.append(f"{difference}: not paired, the test tasks differ")
    if len(result.get("seeds", ())) > 1 and result["seeds"] == results[0].get("seeds"):
      by_seed = np.subtract(*(r["over_seeds"]["means"] for r in (result, results[0])))
      ci95 = evaluation.ci95_of_few(by_seed)
      lines.append(f"{difference}: {by_seed.mean():+.4f} +/- {ci95:.4f} (paired over {len(by_seed)} training seeds)")
  return lines


def _test_tasks(directory: pathlib.Path, result: Mapping[str, Any]) -> tuple[Any, ...]:
  """The settings that determine the test tasks of a run."""
  config = workdir.read_json(directory / workdir.CONFIG)
  return settings.of_the_test(config), config["eval"].get("seed", 0), result["data"]
