"""Memory policies of long unrolls: temporaries beside those predicted from short ones, and the time that they take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from experiments.benchmarks import cost, report
from experiments.benchmarks.cost import Row, Setting
from experiments.benchmarks.estimators import Table, chosen
from experiments.benchmarks.memory import compiled
from warpjax.diagnostics.cost import growth
from warpjax.runner.config import schema

TITLE = "Memory policies of long unrolls"
TEXT = (
  "Temporaries of one task's meta-gradient in MiB, as XLA plans them, by inner steps; in brackets as predicted from "
  "programs of at most 64 steps. Conv-4 of 64 filters, 25 images a step, SGD, mixed mode. The time is in CPU seconds, "
  "the median of rounds in which the policies take turns."
)


def rows(
  policies: dict,
  inner_loop: dict,
  setting: dict,
  inner_steps: Sequence[int],
  timed_steps: Sequence[int] = (),
  rounds: int = 3,
  only: Sequence[str] = (),
) -> Iterator[Row]:
  """The temporaries of each policy at each number of inner steps, measured and predicted; for `timed_steps` the time.

  Args:
    policies: Tables of `unrolled`, whose `memory` is the policy; times are relative to the first.
    inner_loop: The rule.
    setting: The sizes.
    inner_steps: Numbers of steps.
    timed_steps: The numbers of steps that are run and timed.
    rounds: Runs of each policy; the median counts.
    only: Names of policies; all if empty.
  """
  base = schema.call("config.setting", setting, Setting)._replace(tasks=1)
  todo, kept = cost.work(base, inner_loop), chosen(policies, only)
  lines = {name: _line(todo, table) for name, table in kept.items()}
  for steps in inner_steps:
    programs = {name: compiled(todo, steps, table) for name, table in kept.items()}
    times = _times(programs, rounds) if steps in timed_steps else {}
    for name, (_, _, known) in programs.items():
      row = {"method": name, **base._replace(inner_steps=steps)._asdict(), **known}
      row["predicted_bytes"] = lines[name].bytes_of(steps)
      row["relative_error"] = row["predicted_bytes"] / row["temp_bytes"] - 1
      yield {**row, **times.get(name, {})}


def _line(todo: cost.Work, table: Table) -> Any:
  """How the temporaries of a policy grow."""
  size = lambda steps, snapshots: compiled(todo, steps, {**table, "snapshots": snapshots})[2]["temp_bytes"]
  return growth(size, table["memory"])


def _times(programs: Mapping[str, tuple[Any, Any, Row]], rounds: int) -> dict[str, Row]:
  """CPU seconds of a run, and how many times those of the first policy; rounds of all, one after another."""
  seconds: dict[str, list[float]] = {name: [] for name in programs}
  for name in [name for _ in range(rounds) for name in programs]:
    program, args, _ = programs[name]
    start = time.process_time()
    jax.block_until_ready(program(*args))
    seconds[name].append(time.process_time() - start)
  first = next(iter(seconds.values()))
  ratio = lambda mine: statistics.median(a / b for a, b in zip(mine, first, strict=True))
  return {
    name: {"seconds": statistics.median(mine), "ratio": ratio(mine), "rounds": rounds} for name, mine in seconds.items()
  }


def record(rows: Sequence[Row], about: Mapping[str, Any], command: str, before: Any = None) -> dict[str, Any]:
  """The record of this machine; `before`, an earlier record of it, is replaced."""
  del before
  steps = list(dict.fromkeys(row["inner_steps"] for row in rows))
  timed = list(dict.fromkeys(row["inner_steps"] for row in rows if row.get("ratio")))
  lines = []
  for method in dict.fromkeys(row["method"] for row in rows):
    mine = {row["inner_steps"]: row for row in rows if row["method"] == method}
    sizes = [f"{_mib(mine[each]['temp_bytes'])} ({_mib(mine[each]['predicted_bytes'])})" for each in steps]
    lines.append(
      [f"`{method}`", *sizes, *(f"{mine[each]['seconds']:.1f} s, {mine[each]['ratio']:.2f}" for each in timed)]
    )
  columns = ("policy", *map(str, steps), *(f"time of {each} steps, relative to the first" for each in timed))
  kept = ("method", "inner_steps", "temp_bytes", "predicted_bytes", "relative_error", "seconds", "ratio")
  measured = [{key: row.get(key) for key in kept} for row in rows]
  return report.record(TITLE, TEXT, columns, lines, about, command, measured=measured)


def _mib(size: float) -> str:
  return f"{size / 2**20:,.1f}"
