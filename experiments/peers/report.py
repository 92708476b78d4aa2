"""From seconds to medians, ratios with their spread, and the fraction of the machine's matrix-product rate."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import canvas
from experiments.peers.cases import Case
from experiments.peers.group import OURS, YARDSTICK, Timed

_RESAMPLES = 2000


def summary(case: Case, timed: Timed) -> dict[str, Any]:
  """The result of one case.

  Args:
    case: What was done.
    timed: What was measured.

  Returns:
    `peers`: for each its `median`, `quartiles` and all `seconds`, and, against warpjax, `ratio` (of medians) with
    `ratio_ci95` (bootstrap over rounds, which keeps what ran in one round together) and `agrees` (loss and gradient
    norm of the first meta-step). `gflop` and `matmul_fraction` are warpjax's; `missing` names who could not start.
  """
  rounds = {name: np.array(values) for name, values in timed.seconds.items()}
  peers = {name: _peer(name, rounds, timed.facts) for name in rounds if name != YARDSTICK}
  rate = timed.facts[YARDSTICK]["flops"] / float(np.median(rounds[YARDSTICK])) / 1e9
  gflop = timed.facts[OURS]["flops"] / 1e9
  return {
    "case": case._asdict(),
    "peers": peers,
    "missing": timed.missing,
    "matmul_gflop_per_second": rate,
    "gflop": gflop,
    "matmul_fraction": gflop / peers[OURS]["median"] / rate,
  }


def _peer(name: str, rounds: Mapping[str, np.ndarray], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  mine, ours = rounds[name], rounds[OURS]
  found = {
    "median": float(np.median(mine)),
    "quartiles": np.quantile(mine, [0.25, 0.75]).tolist(),
    "seconds": mine.tolist(),
    **{key: facts[name][key] for key in ("version", "device", "loss", "grad_norm", "temp_bytes") if key in facts[name]},
  }
  if name == OURS:
    return found
  draws = np.random.default_rng(0).integers(0, len(mine), (_RESAMPLES, len(mine)))
  ratios = np.median(mine[draws], axis=1) / np.median(ours[draws], axis=1)
  agrees = all(np.isclose(facts[name][key], facts[OURS][key], rtol=1e-2) for key in ("loss", "grad_norm"))
  ratio = float(np.median(mine) / np.median(ours))
  return found | {"ratio": ratio, "ratio_ci95": np.quantile(ratios, [0.025, 0.975]).tolist(), "agrees": agrees}


def machine() -> dict[str, Any]:
  """What the figures were measured on, and when."""
  model = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    model = names[0] if names else model
  return {
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
    "processor": model,
    "cores": len(os.sched_getaffinity(0)),
    "load_before": os.getloadavg()[0],
    "python": platform.python_version(),
    "system": platform.platform(),
  }


def table(results: Sequence[Mapping[str, Any]]) -> str:
  """One line for each peer of each case."""
  lines = [f"{'case':<12} {'peer':<11} {'median s':>9} {'quartiles':>17} {'x warpjax':>10} {'95%':>15}  remarks"]
  for result in results:
    for name, peer in result["peers"].items():
      low, high = peer["quartiles"]
      memory = f"temporaries {peer['temp_bytes'] / 2**20:.1f} MiB" if "temp_bytes" in peer else ""
      times = f"{result['case']['name']:<12} {name:<11} {peer['median']:>9.4g} {f'{low:.4g} - {high:.4g}':>17}"
      if name == OURS:
        share = f"{result['gflop']:.3g} GFLOP, {100 * result['matmul_fraction']:.0f}% of the matmul rate, "
        rate = f"{result['matmul_gflop_per_second']:.0f} GFLOP/s"
        lines.append(f"{times} {'1':>10} {'':>15}  {share}{rate}; {memory}")
      else:
        first, last = peer["ratio_ci95"]
        remarks = memory if peer["agrees"] else f"ANOTHER loss or gradient; {memory}"
        lines.append(f"{times} {peer['ratio']:>10.2f} {f'{first:.2f} - {last:.2f}':>15}  {remarks}".rstrip())
    lines += [f"{result['case']['name']:<12} {name:<11} missing: {why}" for name, why in result["missing"].items()]
  return "\n".join(lines)


def draw(results: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
  """Bars of the ratios, one group a case, with their intervals."""
  names = sorted({name for result in results for name in result["peers"]} - {OURS})
  figure, axes = canvas.subplots(figsize=(1.5 + 1.6 * len(results), 3.6))
  for index, name in enumerate(names):
    at = [i for i, result in enumerate(results) if name in result["peers"]]
    peers = [results[i]["peers"][name] for i in at]
    heights = [peer["ratio"] for peer in peers]
    errors = np.abs(np.array([peer["ratio_ci95"] for peer in peers]).T - heights)
    width = 0.8 / len(names)
    axes.bar([i + width * (index - (len(names) - 1) / 2) for i in at], heights, width, yerr=errors, label=name)
  axes.axhline(1.0, color="black", linewidth=0.8)
  axes.set(yscale="log", ylabel="time of a meta-step, times warpjax's")
  axes.set_xticks(range(len(results)), [result["case"]["name"] for result in results])
  axes.legend(frameon=False)
  figure.savefig(path, dpi=150, bbox_inches="tight")
