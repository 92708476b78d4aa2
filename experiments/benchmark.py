"""Benchmarks meta-gradients: how exact they are, what they cost.

  python -m experiments.benchmark --config=configs/benchmark.py:accuracy --workdir=runs/benchmark/accuracy

Writes `results.csv`, a row for each measurement, `machine.json` and pictures in the workdir, and prints the rows as a
table. Times mean little on a machine that does something else besides.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from absl import flags

from experiments.benchmarks import accuracy, cases, cost, memory, report
from experiments.benchmarks.estimators import from_tables
from experiments.peers import cases as peers_cases
from experiments.peers import group as peers_group
from experiments.peers import report as peers_report
from warpjax.checks import check_count
from warpjax.runner import cli
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import recipes, schema
from warpjax.runner.machine import provenance

Row = dict[str, Any]


class Mode(NamedTuple):
  """One benchmark: `rows(**settings)`, its settings those of the config, and what draws them."""

  rows: Callable[..., Iterator[Row]]
  draw: Callable[[Sequence[Row], pathlib.Path], Any]


def _accuracy(problems: dict, estimators: dict, inner_steps: Sequence[int], only: Sequence[str] = ()) -> Iterator[Row]:
  for name, table in problems.items():
    case = schema.call(f"config.problems.{name}", table, schema.choose("config.problems", name, cases.CASES))
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), case.tasks)
    yield from accuracy.compare(case, from_tables(_kept(estimators, only), example), num_steps=inner_steps)


def _memory(
  estimators: dict,
  inner: dict,
  setting: dict,
  inner_steps: Sequence[int],
  peak_steps: Sequence[int] = (),
  only: Sequence[str] = (),
) -> Iterator[Row]:
  return memory.rows(_setting(setting), inner, _kept(estimators, only), inner_steps, peak_steps)


def _speed(methods: dict, setting: dict, axes: dict, repeats: int, only: Sequence[str] = ()) -> Iterator[Row]:
  return cost.speed(_setting(setting), _kept(methods, only), axes, repeats)


def _scaling(methods: dict, setting: dict, axes: dict, repeats: int, only: Sequence[str] = ()) -> Iterator[Row]:
  return cost.scaling(_setting(setting), _kept(methods, only), axes, repeats)


def _peers(names: Sequence[str], rounds: int, small: bool = False, only: Sequence[str] = ()) -> Iterator[Row]:
  check_count("config.rounds", rounds)
  chosen = [schema.choose("config.names", name, peers_cases.CASES) for name in names]
  wanted = _kept(dict.fromkeys(peer for case in chosen for peer in case.peers), only)
  kept = [case._replace(peers=tuple(peer for peer in case.peers if peer in wanted)) for case in chosen]
  timed = [peers_cases.smaller(case) if small else case for case in kept]
  return (row for case in timed for row in peers_report.rows(case, peers_group.time_case(case, rounds)))


MODES: dict[str, Mode] = {
  "accuracy": Mode(_accuracy, report.draw_accuracy),
  "memory": Mode(_memory, report.draw_memory),
  "peers": Mode(_peers, peers_report.draw),
  "scaling": Mode(_scaling, report.draw_scaling),
  "speed": Mode(_speed, report.draw_speed),
}


def run(config: Mapping[str, Any], workdir: pathlib.Path, only: Sequence[str] = ()) -> list[Row]:
  """Measures what the config says; `results.csv` grows row by row, so that an interrupted run keeps its rows.

  Args:
    config: `method`, the benchmark's name, and its settings.
    workdir: Where results go.
    only: Names of the estimators, methods or peers to measure; all of them where there is none.

  Returns:
    The rows.

  Raises:
    ValueError: for a setting that is unknown or not allowed.
  """
  settings = recipes.without_none({key: value for key, value in config.items() if key not in ("experiment", "method")})
  name = config.get("method")
  mode = schema.choose("config.method", name, MODES)
  if only:
    settings["only"] = tuple(only)
  found = schema.call("config", settings, mode.rows)
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
  (workdir / "machine.json").write_text(json.dumps(machine(), indent=2) + "\n", encoding="utf-8")
  rows = []
  for row in found:
    rows.append({"mode": name, **row})
    report.write_csv(workdir / "results.csv", rows)
  print(f"{name} on {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
  print(report.table(rows))
  if rows:
    mode.draw(rows, workdir)
  return rows


def machine() -> dict[str, Any]:
  """What figures were measured on, and when: the machine, its load before, the devices, the commit and the versions."""
  made = provenance.of_run()
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    "load_before": os.getloadavg()[0],
    "devices": [device.device_kind for device in jax.devices()],
    "system": platform.platform(),
    **made.pop("machine"),
    **made,
  }


def _setting(table: Mapping[str, Any]) -> cost.Setting:
  return schema.call("config.setting", table, cost.Setting)


def _kept(tables: Mapping[str, Any], only: Sequence[str]) -> Mapping[str, Any]:
  return {name: schema.choose("--only", name, tables) for name in only} or tables


def main() -> None:
  """Runs the command."""
  run(cli.config(), pathlib.Path(FLAGS.workdir), FLAGS.only)


if __name__ == "__main__":
  cli.define(config=True, places=False)
  flags.DEFINE_string("workdir", None, "Where results go.", required=True)
  flags.DEFINE_list("only", [], "Estimators, methods or peers to measure; default: all of them.")
  cli.run(main)
