"""The time of a recipe's meta-step by operation, and by the way to compute it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from experiments.benchmarks import report
from experiments.benchmarks.cost import Row
from warpjax.runner import load_config, profiling
from warpjax.runner.experiment import build
from warpjax.runner.machine import tuning


def profile(row: str, settings: Sequence[str] = (), only: Sequence[str] = ()) -> Iterator[Row]:
  """The time of each operation of each layer, the longest first.

  Args:
    row: `NAME:METHOD` of a recipe, as for `--config`.
    settings: `KEY=VALUE`, each.
    only: Layers; default: all of them.

  Yields:
    `layer`, `operation`, `kind`, its `seconds` and those of the whole meta-step.
  """
  spent, whole = profiling.profile(build(load_config(row, *settings)))
  for one in spent:
    if not only or one.layer in only:
      yield {"method": row, **one._asdict(), "kind": one.kind, "whole_seconds": whole}


def tune(row: str, settings: Sequence[str] = (), only: Sequence[str] = ()) -> Iterator[Row]:
  """The time of a meta-step by lowering of convolutions and vmapped tasks, on the devices that there are.

  Args:
    row: `NAME:METHOD` of a recipe, as for `--config`.
    settings: `KEY=VALUE`, each.
    only: Flags of choices; default: all of them.

  Yields:
    The `choice`, as flags, its `seconds`, and `devices`.
  """
  for one in tuning.measure(load_config(row, *settings)):
    choice = tuning.flags_of(one.changes)
    if not only or choice in only:
      yield {"method": row, "choice": choice, "seconds": one.seconds, "devices": jax.device_count()}


def profile_record(rows: Sequence[Row], about: Mapping[str, Any], command: str, before: Any = None) -> dict[str, Any]:
  """The record of a profile on this machine; `before`, an earlier one, is replaced."""
  del before
  total = sum(row["seconds"] for row in rows)
  kinds = {kind: sum(row["seconds"] for row in rows if row["kind"] == kind) / total for kind in profiling.KINDS}
  said = ", ".join(f"{kind} {share:.0%}" for kind, share in kinds.items())
  whole = 1e3 * rows[0]["whole_seconds"]
  cells = [
    [row["layer"], f"`{row['operation']}`", f"{1e3 * row['seconds']:.2f}", f"{row['seconds'] / total:.1%}"]
    for row in rows
    if row["seconds"] >= 0.002 * total
  ]
  text = f"A meta-step takes {whole:.4g} ms, its operations {1e3 * total:.4g} ms: {said}."
  title = f"One meta-step of {rows[0]['method']} by layer and operation"
  return report.record(title, text, ("layer", "operation", "ms", "share"), cells, about, command)


def tune_record(rows: Sequence[Row], about: Mapping[str, Any], command: str, before: Any = None) -> dict[str, Any]:
  """The record of the choices on this machine; `before`, an earlier one, is replaced."""
  del before
  text = (
    f"Medians over alternating rounds, with {rows[0]['devices']} device(s). The first lines are of the default number "
    "of vmapped tasks, which 0 stands for, and the others of the faster convolutions."
  )
  cells = [[f"`{row['choice']}`", f"{1e3 * row['seconds']:.4g}"] for row in rows]
  title = f"Ways to compute a meta-step of {rows[0]['method']}"
  return report.record(title, text, ("choice", "ms"), cells, about, command)


def draw(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """A bar for each row of at least a fiftieth of the longest."""
  shown = [row for row in rows if row["seconds"] >= 0.02 * max(each["seconds"] for each in rows)]
  labels = [row.get("choice") or f"{row['layer'] or 'outside of the network'}, {row['operation']}" for row in shown]
  values = [1e3 * row["seconds"] for row in shown]
  path = folder / ("tune.png" if "choice" in shown[0] else "profile.png")
  return [report.bars(labels, values, path, xlabel="milliseconds a meta-step", title=shown[0]["method"])]
