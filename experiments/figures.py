"""Pictures and tables of results."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import workdir
from warpjax import evaluation

# Settings of `config.data` that choose no test task, besides those whose name begins with "train_".
NOT_OF_TEST_TASKS = ("rotations", "invert", "query", "numbered", "augmentation", "placement", "require_complete")


def draw(
  directories: Sequence[pathlib.Path], output: str | os.PathLike[str], *, results: Sequence[Mapping[str, Any]]
) -> None:
  """Draws the metric while training and after each inner step on test tasks, a colour for each workdir.

  Args:
    directories: Workdirs.
    output: The PNG to write.
    results: Their results.
  """
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot, ticker

  figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
  names = labels(directories, [f"{result['experiment']}:{result['method']}" for result in results])
  for directory, result, label in zip(directories, results, names, strict=True):
    metric = result["metric"]
    rows = [row for row in workdir.read_metrics(directory) if row.get(metric) is not None]
    train, val = ([row for row in rows if row["split"] == split] for split in ("train", "val"))
    (line,) = left.plot([row["step"] for row in train], smooth([row[metric] for row in train]), label=label)
    left.plot([row["step"] for row in val], [row[metric] for row in val], "o--", markersize=3, color=line.get_color())
    mean, ci95 = np.array(result["per_step"], float), np.array(result.get("per_step_ci95", 0.0), float)
    steps = np.arange(len(mean))
    right.plot(steps, mean, marker="o", markersize=3, label=label)
    right.fill_between(steps, mean - ci95, mean + ci95, alpha=0.2)
  left.set(title="training tasks, and validation tasks as points", xlabel="meta-step", ylabel=metric)
  right.set(title="test tasks, 95% interval over tasks", xlabel="adaptation step", ylabel=metric)
  right.legend()
  right.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  for axes in (left, right):
    axes.grid(alpha=0.3)
    if metric == "mse":
      axes.set_yscale("log")
  pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(output, dpi=120)
  pyplot.close(figure)


def labels(directories: Sequence[pathlib.Path], names: Sequence[str]) -> list[str]:
  """The names, with its directory after each that several have.

  Example:
    >>> labels([pathlib.Path("runs/a"), pathlib.Path("runs/b"), pathlib.Path("runs/c")], ["maml", "maml", "anil"])
    ['maml (runs/a)', 'maml (runs/b)', 'anil']
  """
  return [f"{name} ({d})" if names.count(name) > 1 else name for d, name in zip(directories, names, strict=True)]


def smooth(values: Sequence[float], points: int = 200) -> np.ndarray:
  """A running mean over the 200th part of the values."""
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
    cells = [_cell(mean[step], ci95[step]) if step < len(mean) else "" for step in steps]
    lines.append([name, *cells])
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
  return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(mean: float, ci95: float | None) -> str:
  return f"{mean:.3f}" if ci95 is None else f"{mean:.3f} +/- {ci95:.3f}"


def paired(directories: Sequence[pathlib.Path], results: Sequence[Mapping[str, Any]]) -> list[str]:
  """Each result less the first one, over the same test tasks, with the interval of the difference."""
  arrays = [np.load(directory / workdir.PER_TASK)[:, -1] for directory in directories]
  tasks = [_test_tasks(directory, result) for directory, result in zip(directories, results, strict=True)]
  names = labels(directories, [result["method"] for result in results])
  lines = []
  for name, result, array, of in list(zip(names, results, arrays, tasks, strict=True))[1:]:
    difference = f"{name} - {names[0]}"
    if of == tasks[0] and array.shape == arrays[0].shape:
      values = (array - arrays[0])[np.isfinite(array - arrays[0])]  # a task that diverged for either is left out
      mean, ci95 = evaluation.mean_and_ci95(values)
      lines.append(
        f"{difference}: {mean:+.4f} +/- {ci95:.4f} ({result['metric']}, paired over {len(values)} test tasks)"
      )
    else:
      lines.append(f"{difference}: not paired, the test tasks differ")
  return lines


def _test_tasks(directory: pathlib.Path, result: Mapping[str, Any]) -> tuple[Any, ...]:
  """What decides which tasks a run was tested on."""
  config = workdir.read_json(directory / workdir.CONFIG)
  test = {k: v for k, v in config["data"].items() if k not in NOT_OF_TEST_TASKS and not k.startswith("train_")}
  return test, config["eval"].get("seed", 0), result["data"]
