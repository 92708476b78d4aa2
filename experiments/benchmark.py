"""Benchmarks meta-gradients: their error and their cost.

  python -m experiments.benchmark --config=configs/benchmark.py:accuracy --workdir=runs/benchmark/accuracy

Writes `results.csv`, a row for each measurement, `machine.json` and pictures in the workdir, and prints the rows as a
table. With `--record`, `bilevel`, `peers`, `policies`, `profile`, `scaling` and `tune` also write
results/benchmark/MODE_CPU.json, from which `warpjax report` makes tables; cases that are not measured stay as they are
there. Other work on the machine disturbs times.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import flags

from experiments.benchmarks import accuracy, bilevel, bilevel_record, cost, memory, policies, recipe, report, scaling
from experiments.peers import ratios
from experiments.peers import records as of_peers
from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import schema
from warpjax.runner.machine import provenance
from warpjax.runner.reporting import records

Row = dict[str, Any]
MACHINE = ("cpu", "cores", "threads", "memory_gib", "device")


class Mode(NamedTuple):
  """One benchmark: `rows(**settings)`, its settings those of the config, what draws them, and what records them."""

  rows: Callable[..., Iterator[Row]]
  draw: Callable[[Sequence[Row], pathlib.Path], Any]
  record: Callable[..., dict[str, Any]] | None = None


MODES: dict[str, Mode] = {
  "accuracy": Mode(accuracy.rows, report.draw_accuracy),
  "bilevel": Mode(bilevel.rows, bilevel_record.draw, bilevel_record.record),
  "memory": Mode(memory.rows, report.draw_memory),
  "peers": Mode(ratios.rows, ratios.draw, of_peers.of),
  "policies": Mode(policies.rows, report.draw_memory, policies.record),
  "profile": Mode(recipe.profile, recipe.draw, recipe.profile_record),
  "scaling": Mode(scaling.rows, scaling.draw, scaling.record),
  "speed": Mode(cost.speed, report.draw_speed),
  "tune": Mode(recipe.tune, recipe.draw, recipe.tune_record),
}


def run(
  config: Mapping[str, Any], directory: pathlib.Path, only: Sequence[str] = (), record_in: pathlib.Path | None = None
) -> list[Row]:
  """Runs the measurements of the config; `results.csv` grows row by row, so that an interrupted run keeps its rows.

  Args:
    config: `method`, the benchmark's name, and its settings.
    directory: Where results go.
    only: Names of the estimators, methods, peers or cases to measure; none for all of them.
    record_in: Folder of the machine's record, which is written too; None for no record.

  Returns:
    The rows.

  Raises:
    ValueError: For a setting that is unknown or not allowed, or for a benchmark without records.
  """
  settings = {key: value for key, value in config.items() if key not in ("experiment", "method")}
  name = config.get("method")
  mode = schema.choose("config.method", name, MODES)
  if record_in is not None and mode.record is None:
    allowed = ", ".join(name for name, each in MODES.items() if each.record)
    raise ValueError(f"--record is for {allowed}; got the benchmark {name!r}.")
  rows: list[Row] = []
  about = machine()
  for row in schema.call("config", settings, mode.rows, only=tuple(only)):
    if not rows:  # settings that are not allowed have raised by now
      directory.mkdir(parents=True, exist_ok=True)
      workdir.write_json(directory / "config.json", config)
      workdir.write_json(directory / "machine.json", about)
    rows.append({"mode": name, **row})
    report.write_csv(directory / "results.csv", rows)
  print(f"{name} on {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
  print(report.table(rows))
  if rows:
    mode.draw(rows, directory)
  if rows and record_in is not None and mode.record is not None:
    record_in.mkdir(parents=True, exist_ok=True)
    path = record_in / f"{name}_{slug(about['cpu'])}.json"
    before = workdir.read_json(path) if path.exists() else None
    place = {key: about[key] for key in MACHINE}
    workdir.write_json(path, mode.record(rows, {**about, "machine": place}, _command(), before))
    print(f"Wrote {path}.")
  return rows


def slug(cpu: str) -> str:
  """A processor's name as a part of a file's.

  Example:
    >>> slug("AMD EPYC 9R14"), slug("Intel(R) Xeon(R) CPU @ 2.10GHz")
    ('amd_epyc_9r14', 'intel_r_xeon_r_cpu_2_10ghz')
  """
  return re.sub(r"[^a-z0-9]+", "_", cpu.lower()).strip("_")


def _command() -> str:
  return " ".join(["python -m experiments.benchmark", *sys.argv[1:]])


def machine() -> dict[str, Any]:
  """The machine, its load before, the devices, the commit, the versions and the date of a measurement."""
  made = provenance.of_run()
  memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  made["machine"] |= {"threads": os.cpu_count(), "memory_gib": round(memory_bytes / 2**30)}
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
  folder, config = records.FOLDER / "benchmark" if FLAGS.record else None, cli.config()
  if folder is not None:
    records.check_checkout()
    if config.get("small"):
      raise ValueError("--record is for the sizes of the papers; got config.small=True.")
  run(config, pathlib.Path(FLAGS.workdir), FLAGS.only, folder)


if __name__ == "__main__":
  cli.define(config=True, places=False)
  flags.DEFINE_string("workdir", None, "Where results go.", required=True)
  flags.DEFINE_list("only", [], "Estimators, methods, peers or cases to measure; default: all of them.")
  flags.DEFINE_bool("record", False, "Write the machine's record in results/benchmark too, in a checkout.")
  cli.run(main)
