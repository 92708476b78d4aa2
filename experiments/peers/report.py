"""From seconds to medians, ratios with their spread, and the fraction of the machine's matrix-product rate."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.peers.cases import Case
from experiments.peers.group import OURS, YARDSTICK, Timed
from warpjax.runner.plots import canvas

Row = dict[str, Any]
_RESAMPLES = 2000


def rows(case: Case, timed: Timed) -> Iterator[Row]:
  """The result of one case, a row for each peer.

  Args:
    case: What was done.
    timed: What was measured.

  Returns:
    Rows of `method`, `seconds` (the median of a meta-step) and its quartiles, `ratio` (of medians, to warpjax's) with
    its 95% interval (bootstrap over rounds, which keeps what ran in one round together), `agrees` (loss and gradient
    norm of the first meta-step), `temp_bytes`, `version`; for warpjax `flops` and `matmul_fraction`. A peer that could
    not start has a `remark` alone.
  """
  seconds = {name: np.array(values) for name, values in timed.seconds.items()}
  rate = timed.facts[YARDSTICK]["flops"] / float(np.median(seconds[YARDSTICK]))
  for name in seconds:
    if name != YARDSTICK:
      yield {"case": case.name, "method": name, **_peer(name, seconds, timed.facts, rate)}
  for name, why in timed.missing.items():
    yield {"case": case.name, "method": name, "remark": f"missing: {why}"}


def _peer(name: str, seconds: Mapping[str, np.ndarray], facts: Mapping[str, Mapping[str, Any]], rate: float) -> Row:
  mine, ours = seconds[name], seconds[OURS]
  median = float(np.median(mine))
  low, high = (float(value) for value in np.quantile(mine, [0.25, 0.75]))
  known = {key: facts[name][key] for key in ("version", "temp_bytes") if key in facts[name]}
  found = {"seconds": median, "seconds_low": low, "seconds_high": high, **known}
  if name == OURS:
    flops = facts[OURS]["flops"]
    return {**found, "ratio": 1.0, "flops": flops, "matmul_fraction": flops / median / rate}
  draws = np.random.default_rng(0).integers(0, len(mine), (_RESAMPLES, len(mine)))
  ratios = np.median(mine[draws], axis=1) / np.median(ours[draws], axis=1)
  first, last = (float(value) for value in np.quantile(ratios, [0.025, 0.975]))
  agrees = all(bool(np.isclose(facts[name][key], facts[OURS][key], rtol=1e-2)) for key in ("loss", "grad_norm"))
  ratio = median / float(np.median(ours))
  return {**found, "ratio": ratio, "ratio_low": first, "ratio_high": last, "agrees": agrees}


def draw(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Bars of the ratios, one group a case, with their intervals."""
  timed = [row for row in rows if "ratio_low" in row]
  names, cases = (list(dict.fromkeys(row[key] for row in timed)) for key in ("method", "case"))
  figure, axes = canvas.subplots(figsize=(1.5 + 1.6 * len(cases), 3.6))
  for index, name in enumerate(names):
    mine = [row for row in timed if row["method"] == name]
    heights = [row["ratio"] for row in mine]
    errors = np.abs(np.array([(row["ratio_low"], row["ratio_high"]) for row in mine]).T - heights)
    width = 0.8 / len(names)
    at = [cases.index(row["case"]) + width * (index - (len(names) - 1) / 2) for row in mine]
    axes.bar(at, heights, width, yerr=errors, label=name)
  axes.axhline(1.0, color="black", linewidth=0.8)
  axes.set(yscale="log", ylabel="time of a meta-step, times warpjax's")
  axes.set_xticks(range(len(cases)), cases)
  axes.legend(frameon=False)
  figure.savefig(folder / "peers.png", dpi=150, bbox_inches="tight")
  return [folder / "peers.png"]
