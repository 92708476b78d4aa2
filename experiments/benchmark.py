"""Benchmarks meta-gradients: how exact they are, what they cost.

  python -m experiments.benchmark --config=configs/benchmark.py:accuracy --workdir=runs/benchmark/accuracy

Writes `results.csv`, a row for each measurement, `machine.json` and pictures in the workdir, and prints the rows as a
table. Other work on the machine disturbs times.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import flags

from experiments.benchmarks import accuracy, cost, memory, report
from experiments.peers import ratios
from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import schema
from warpjax.runner.machine import provenance

Row = dict[str, Any]


class Mode(NamedTuple):
  """One benchmark: `rows(**settings)`, its settings those of the config, and what draws them."""

  rows: Callable[..., Iterator[Row]]
  draw: Callable[[Sequence[Row], pathlib.Path], Any]


MODES: dict[str, Mode] = {
  "accuracy": Mode(accuracy.rows, report.draw_accuracy),
  "memory": Mode(memory.rows, report.draw_memory),
  "peers": Mode(ratios.rows, ratios.draw),
  "scaling": Mode(cost.scaling, report.draw_scaling),
  "speed": Mode(cost.speed, report.draw_speed),
}


def run(config: Mapping[str, Any], directory: pathlib.Path, only: Sequence[str] = ()) -> list[Row]:
  """Measures what the config says; `results.csv` grows row by row, so that an interrupted run keeps its rows.

  Args:
    config: `method`, the benchmark's name, and its settings.
    directory: Where results go.
    only: Names of the estimators, methods or peers to measure; none for all of them.

  Returns:
    The rows.

  Raises:
    ValueError: For a setting that is unknown or not allowed.
  """
  settings = {key: value for key, value in config.items() if key not in ("experiment", "method")}
  name = config.get("method")
  mode = schema.choose("config.method", name, MODES)
  rows: list[Row] = []
  about = machine()
  for row in schema.call("config", settings, mode.rows, only=tuple(only)):
    if not rows:  # what is not allowed has raised by now
      directory.mkdir(parents=True, exist_ok=True)
      workdir.write_json(directory / "config.json", config)
      workdir.write_json(directory / "machine.json", about)
    rows.append({"mode": name, **row})
    report.write_csv(directory / "results.csv", rows)
  print(f"{name} on {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
  print(report.table(rows))
  if rows:
    mode.draw(rows, directory)
  return rows


def machine() -> dict[str, Any]:
  """What is measured on, and when: the machine, its load before, the devices, the commit and the versions."""
  made = provenance.of_run()
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    "load_before": os.getloadavg()[0],
    "devices": [device.device_kind for device in jax.devices()],
    "system": platform.platform(),
    **made.pop("machine"),
    **made,
  }


def main() -> None:
  """Runs the command."""
  run(cli.config(), pathlib.Path(FLAGS.workdir), FLAGS.only)


if __name__ == "__main__":
  cli.define(config=True, places=False)
  flags.DEFINE_string("workdir", None, "Where results go.", required=True)
  flags.DEFINE_list("only", [], "Estimators, methods or peers to measure; default: all of them.")
  cli.run(main)
