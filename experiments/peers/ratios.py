"""From seconds to medians, ratios with their spread, and the fraction of the machine's matrix-product rate."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.estimators import chosen
from experiments.peers.cases import CASES, Case, smaller
from experiments.peers.group import OURS, YARDSTICK, Timed, time_case
from warpjax.checks import check_count
from warpjax.runner.config import schema
from warpjax.runner.plots import canvas

Row = dict[str, Any]
_RESAMPLES = 2000


def rows(names: Sequence[str], rounds: int, small: bool = False, only: Sequence[str] = ()) -> Iterator[Row]:
  """The rows of every case that a config names, for the peers that `only` names, or all."""
  check_count("config.rounds", rounds)
  cases = [schema.choose("config.names", name, CASES) for name in names]
  wanted = chosen(dict.fromkeys(peer for case in cases for peer in case.peers), only)
  for case in cases:
    kept = case._replace(peers=tuple(peer for peer in case.peers if peer in wanted))
    kept = smaller(kept) if small else kept
    yield from of_case(kept, time_case(kept, rounds))


def of_case(case: Case, timed: Timed) -> Iterator[Row]:
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
  own, ours = seconds[name], seconds[OURS]
  median, low, high = (float(value) for value in np.quantile(own, [0.5, 0.25, 0.75]))
  known = {key: facts[name][key] for key in ("version", "temp_bytes") if key in facts[name]}
  row = {"seconds": median, "seconds_low": low, "seconds_high": high, **known}
  if name == OURS:
    flops = facts[OURS]["flops"]
    return {**row, "ratio": 1.0, "flops": flops, "matmul_fraction": flops / median / rate}
  draws = np.random.default_rng(0).integers(0, len(own), (_RESAMPLES, len(own)))
  resampled = np.median(own[draws], axis=1) / np.median(ours[draws], axis=1)
  first, last = (float(value) for value in np.quantile(resampled, [0.025, 0.975]))
  agrees = all(bool(np.isclose(facts[name][key], facts[OURS][key], rtol=1e-2)) for key in ("loss", "grad_norm"))
  ratio = median / float(np.median(ours))
  return {**row, "ratio": ratio, "ratio_low": first, "ratio_high": last, "agrees": agrees}


def draw(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Bars of the ratios, one group for each case, with their intervals; nothing where no peer could start."""
  timed = [row for row in rows if "ratio_low" in row]
  if not timed:
    return []
  names, cases = (list(dict.fromkeys(row[key] for row in timed)) for key in ("method", "case"))
  figure, axes = canvas.subplots(figsize=(1.5 + 1.6 * len(cases), 3.6), layout="constrained")
  width = 0.8 / len(names)
  for index, name in enumerate(names):
    bars = [row for row in timed if row["method"] == name]
    heights = [row["ratio"] for row in bars]
    errors = np.abs(np.array([(row["ratio_low"], row["ratio_high"]) for row in bars]).T - heights)
    at = [cases.index(row["case"]) + width * (index - (len(names) - 1) / 2) for row in bars]
    axes.bar(at, heights, width, yerr=errors, label=name)
  axes.axhline(1.0, color="black", linewidth=0.8)
  axes.set(yscale="log", ylabel="time of a meta-step, times warpjax's")
  axes.set_xticks(range(len(cases)), cases)
  axes.legend(frameon=False)
  canvas.save(figure, folder / "peers.png")
  return [folder / "peers.png"]
