"""Test-time training: trains the rows of configs/ttt.py, and compares their bits per byte by position in the text.

python -m experiments.ttt --workdir=runs/ttt --data_dir=kjv.txt
"""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from warpjax import evaluation
from warpjax.diagnostics import cost, timing
from warpjax.runner import cli, loop, run, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import recipes
from warpjax.runner.experiment import build
from warpjax.runner.plots import canvas
from warpjax.training import parallel

ROWS = tuple(recipes.load("ttt").methods)
MAIN = "end_to_end"
ROUNDS = 3  # rounds of timing, in which the rows take turns


class Cost(NamedTuple):
  """The cost of a meta-step: for each task, seconds of a core or the device and 1e9 FLOPs; and bytes of temporaries."""

  seconds: float
  gigaflops: float
  temp_bytes: int


def last_quarter(values: np.ndarray) -> np.ndarray:
  """The mean over the last quarter of positions, `[..., positions] -> [...]`."""
  return np.mean(values[..., -max(1, values.shape[-1] // 4) :], axis=-1)


def compare(measured: Mapping[str, np.ndarray], costs: Mapping[str, Cost]) -> dict[str, Any]:
  """The statement: bits per byte of each row by position, and the main row less each other in the last quarter.

  Args:
    measured: Bits per byte of each row, `[seeds, tasks, positions]`, of the same tasks.
    costs: The cost of a meta-step of each row.

  Returns:
    Means, with 95% intervals over tasks (of the mean over seeds) and over seeds (Student's). A difference `excludes_0`
    if both of its intervals do; that over seeds needs at least two of them.
  """
  rows = {
    name: {
      "per_position": np.mean(values, axis=(0, 1)).tolist(),
      "per_position_ci95": [evaluation.mean_and_ci95(column)[1] for column in np.mean(values, axis=0).T],
      "last_quarter": _intervals(last_quarter(values)),
      **(costs[name]._asdict() if name in costs else {}),
    }
    for name, values in measured.items()
  }
  main = last_quarter(measured[MAIN])
  others = {name: _intervals(main - last_quarter(values)) for name, values in measured.items() if name != MAIN}
  seeds, tasks = main.shape
  return {"seeds": seeds, "tasks": tasks, "rows": rows, f"{MAIN}_less": others}


def _intervals(values: np.ndarray) -> dict[str, Any]:
  """The mean of `[seeds, tasks]`, with its interval over either."""
  mean, over_tasks = evaluation.mean_and_ci95(np.mean(values, axis=0))
  over_seeds = evaluation.ci95_of_few(np.mean(values, axis=1))
  excludes = bool(abs(mean) > over_tasks and abs(mean) > over_seeds)  # False for the NaN of one seed
  return {"mean": mean, "ci95_over_tasks": over_tasks, "ci95_over_seeds": over_seeds, "excludes_0": excludes}


def cost_of(names: Sequence[str], **places: Any) -> dict[str, Cost]:
  """The cost of a meta-step of each row on this device, from its initial parameters; the rows take turns."""
  clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
  calls: dict[str, Callable[[], Any]] = {}
  seconds: dict[str, list[float]] = {name: [] for name in names}
  counted: dict[str, cost.Cost] = {}
  for name in names:
    built = build(recipes.settings(f"ttt:{name}"), **places)
    arguments = loop.start(built), built.data.train
    traced = loop.make_dispatch(built, 1, parallel.device_mesh(1)).trace(*arguments)
    compiled = traced.lower().compile()
    counted[name], calls[name] = cost.cost_of(traced, compiled), partial(compiled, *arguments)
  for _ in range(ROUNDS):
    for name in names:
      seconds[name] += timing.seconds_of(calls[name], 1, clock=clock)
  tasks = built.run.tasks_per_step
  return {
    name: Cost(statistics.median(seconds[name]) / tasks, each.flops / tasks / 1e9, each.temp_bytes)
    for name, each in counted.items()
  }


def table(statement: Mapping[str, Any]) -> str:
  """The statement as a table in Markdown: the first chunk, each quarter, and the costs."""
  lines = [
    "| row | first chunk | quarter 1 | 2 | 3 | 4 | end to end less it, in 4 | seconds a task | GFLOP a task | MiB |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for name, row in statement["rows"].items():
    quarters = [f"{np.mean(part):.3f}" for part in np.array_split(row["per_position"], 4)]
    less = statement[f"{MAIN}_less"].get(name)
    difference = f"{less['mean']:.4f} +/- {less['ci95_over_tasks']:.4f}" if less else "-"
    spent = ["-"] * 3
    if "seconds" in row:
      spent = [f"{row['seconds']:.2f}", f"{row['gigaflops']:.1f}", f"{row['temp_bytes'] / 2**20:.0f}"]
    lines.append("| " + " | ".join([name, f"{row['per_position'][0]:.3f}", *quarters, difference, *spent]) + " |")
  return "\n".join(lines)


def draw(statement: Mapping[str, Any], output: pathlib.Path) -> None:
  """Draws the bits per byte by position: of each row, and of each other row less the main one's."""
  figure, (left, right) = canvas.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
  main = np.array(statement["rows"][MAIN]["per_position"])
  for name, row in statement["rows"].items():
    mean, ci95 = np.array(row["per_position"]), np.array(row["per_position_ci95"])
    chunks = np.arange(1, len(mean) + 1)
    (line,) = left.plot(chunks, mean, label=name, linewidth=2 if name == MAIN else 1)
    left.fill_between(chunks, mean - ci95, mean + ci95, color=line.get_color(), alpha=0.1)
    right.plot(chunks, mean - main, color=line.get_color(), linewidth=2 if name == MAIN else 1)
  left.set(xlabel="chunk", ylabel="bits per byte, before the step on the chunk")
  right.set(xlabel="chunk", ylabel=f"more bits per byte than {MAIN}")
  for axes in (left, right):
    axes.grid(alpha=0.3)
  left.legend(fontsize=8)
  canvas.save(figure, output)


def run_all(
  directory: pathlib.Path, seeds: Sequence[int], names: Sequence[str] = ROWS, **places: Any
) -> dict[str, Any]:
  """Trains, or resumes training, then compares and draws; returns the statement."""
  measured = {}
  for name in names:
    run.sweep(recipes.settings(f"ttt:{name}"), directory / name, seeds, **places)
    measured[name] = np.stack([np.load(directory / name / f"seed_{seed}" / workdir.PER_TASK) for seed in seeds])
  statement = compare(measured, cost_of(names, **places))
  workdir.write_json(directory / "comparison.json", statement)
  draw(statement, directory / "comparison.png")
  return statement


def main() -> None:
  """Runs the command."""
  names, seeds = tuple(FLAGS.rows), cli.integers("seeds", FLAGS.seeds)
  if MAIN not in names or not set(names) <= {*ROWS} or not seeds:
    raise ValueError(f"--rows must be some of {', '.join(ROWS)}, with {MAIN}; got {','.join(names)}.")
  statement = run_all(pathlib.Path(FLAGS.workdir), seeds, names, **cli.places())
  print(json.dumps(statement[f"{MAIN}_less"], indent=2), table(statement), sep="\n")


if __name__ == "__main__":
  cli.define()
  flags.DEFINE_list("rows", list(ROWS), "The rows of configs/ttt.py.")
  flags.DEFINE_list("seeds", ["0", "1", "2"], "Training seeds.")
  flags.DEFINE_string("workdir", "runs/ttt", "Where the runs, the comparison and its picture are kept.")
  cli.run(main)
