"""From seconds to medians, ratios with their spread, and the fraction of the machine's matrix-product rate."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.benchmarks import report
from experiments.benchmarks.estimators import chosen
from experiments.peers import jax_peers
from experiments.peers.cases import CASES, Case, smaller
from experiments.peers.group import OURS, YARDSTICK, Timed, time_case
from experiments.peers.jax_peers import PATHS
from warpjax.checks import check_count
from warpjax.runner.config import schema
from warpjax.runner.plots import canvas

Row = dict[str, Any]
_RESAMPLES = 2000
_TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-2}


def rows(names: Sequence[str], rounds: int, small: bool = False, only: Sequence[str] = ()) -> Iterator[Row]:
  """The rows of every case that a config names; `only` names some of the cases, of their peers, or of both."""
  check_count("config.rounds", rounds)
  for case in those(names, only):
    kept = smaller(case) if small else case
    if kept.method == "warp":
      kept = kept._replace(order=jax_peers.order(kept))
    yield from of_case(kept, time_case(kept, rounds))


def those(names: Sequence[str], only: Sequence[str]) -> list[Case]:
  """The cases and peers that are wanted; a name in `only` that is both a case's and a peer's is the case's.

  Example:
    >>> [(case.name, case.peers) for case in those(("sine", "flax", "leap_16"), ("torch", "flax", "sine"))]
    [('sine', ('torch',))]
  """
  named = {name: schema.choose("config.names", name, CASES) for name in names}
  peers = dict.fromkeys(peer for case in named.values() for peer in case.peers)
  chosen({**named, **peers}, only)
  wanted = set(only) & peers.keys() - named.keys()
  cases = [case for name, case in named.items() if name in only] or list(named.values())
  kept = [case._replace(peers=tuple(peer for peer in case.peers if peer in (wanted or peers))) for case in cases]
  return [case for case in kept if case.peers]


def of_case(case: Case, timed: Timed) -> Iterator[Row]:
  """The result of one case, a row for each peer.

  Args:
    case: What was done.
    timed: What was measured.

  Returns:
    Rows of `method`, `seconds` (the median of a meta-step) and its quartiles, `ratio` (of medians, to warpjax's) with
    its 95% interval (bootstrap over rounds, which keeps what ran in one round together), `agrees` (loss and gradient
    norms of the first meta-step), `temp_bytes`, `peak_bytes` (of the process), `rounds`, `version`; for the paths of
    warpjax `flops`, `matmul_fraction` and `speedup`, how many times as fast as the case's first peer it is, with its
    interval. A peer that could not start has a `remark` alone.
  """
  seconds = {name: np.array(values) for name, values in timed.seconds.items()}
  rate = timed.facts[YARDSTICK]["flops"] / float(np.median(seconds[YARDSTICK]))
  for name in seconds:
    if name == YARDSTICK:
      continue
    row = {"case": case.name, "method": name, **_peer(name, seconds, timed.facts)}
    if name in PATHS:
      flops = timed.facts[name]["flops"]
      row |= {"flops": flops, "matmul_fraction": flops / row["seconds"] / rate}
      row |= _ratio("speedup", seconds[case.peers[0]], seconds[name]) if case.peers[0] in seconds else {}
    yield row
  for name, why in timed.missing.items():
    yield {"case": case.name, "method": name, "remark": f"missing: {why}"}


def _peer(name: str, seconds: Mapping[str, np.ndarray], facts: Mapping[str, Mapping[str, Any]]) -> Row:
  own = seconds[name]
  median, low, high = (float(value) for value in np.quantile(own, [0.5, 0.25, 0.75]))
  known = {key: facts[name][key] for key in ("version", "temp_bytes", "peak_bytes") if key in facts[name]}
  row = {"seconds": median, "seconds_low": low, "seconds_high": high, "rounds": len(own), **known}
  if name == OURS:
    return {**row, "ratio": 1.0}
  row |= _ratio("ratio", own, seconds[OURS])
  numbers = facts[name]["numbers"]
  tolerance = _TOLERANCE[PATHS[name].products if name in PATHS else "float32"]
  agree = [bool(np.isclose(value, facts[OURS]["numbers"][key], rtol=tolerance)) for key, value in numbers.items()]
  return {**row, "agrees": all(agree)} if agree else row


def _ratio(name: str, first: np.ndarray, second: np.ndarray) -> Row:
  """The ratio of medians with its 95% interval."""
  draws = np.random.default_rng(0).integers(0, len(first), (_RESAMPLES, len(first)))
  resampled = np.median(first[draws], axis=1) / np.median(second[draws], axis=1)
  low, high = (float(value) for value in np.quantile(resampled, [0.025, 0.975]))
  return {name: float(np.median(first) / np.median(second)), f"{name}_low": low, f"{name}_high": high}


def draw(rows: Sequence[Row], folder: pathlib.Path) -> list[pathlib.Path]:
  """Bars of the ratios, one group for each case, with their intervals; nothing where no peer could start."""
  timed = [row for row in rows if "ratio_low" in row]
  if not timed:
    return []
  names, cases = (list(dict.fromkeys(row[key] for row in timed)) for key in ("method", "case"))
  figure, axes = canvas.subplots(figsize=(3.5 + 1.4 * len(cases), 3.6), layout="constrained")
  for index, case in enumerate(cases):
    bars = [row for row in timed if row["case"] == case]
    width = 0.8 / len(bars)
    for place, row in enumerate(bars):
      error = [[row["ratio"] - row["ratio_low"]], [row["ratio_high"] - row["ratio"]]]
      at, color = index + width * (place - (len(bars) - 1) / 2), f"C{names.index(row['method'])}"
      axes.bar(at, row["ratio"], width, yerr=np.maximum(error, 0), color=color)
  for index, name in enumerate(names):
    axes.bar(0, 0, color=f"C{index}", label=name)
  axes.axhline(1.0, color="black", linewidth=0.8)
  axes.set(yscale="log", ylabel="time of a meta-step, times warpjax's")
  report.plain_ticks(axes.yaxis)
  axes.set_xticks(range(len(cases)), cases)
  figure.legend(loc="outside right center", frameon=False)
  canvas.save(figure, folder / "peers.png")
  return [folder / "peers.png"]
