"""The record of a comparison on this machine, from which the tables of README and the docs are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from experiments.peers.cases import CASES
from experiments.peers.jax_peers import PATHS

Row = Mapping[str, Any]

TITLE = "One meta-step against other libraries"
PEERS = {"torch": "PyTorch", "flax": "flax's convolutions under `vmap`", "warp_maml": "Warp-MAML of warpjax"}
NAMES = {**PEERS, "torch_full": "PyTorch, second order", "torch_func": "`torch.func`", "reverse": "plain reverse mode"}
COLUMNS = (
  *("work", "peer", "as in README", "a device for each core", "products of bfloat16", "both"),
  *("peer's memory", "warpjax's, times that", "agrees", "others"),
)
TEXT = (
  "A meta-step, float32. The peer of a row is PyTorch by hand where no other is named, with the median of its seconds; "
  "that of offline warp takes the step of the released code, which is of first order. Minibatches of Leap and offline "
  "warp are drawn beforehand and not augmented. The next four columns say how "
  "many times as fast warpjax is, with 95% intervals over the rounds ({rounds} or more, in which the processes took "
  "turns): as README's example has it, in one process without a flag; with a device for each core; with products of "
  "bfloat16, summed in float32; with both. Memory is the peak of a process, of warpjax's in the order of those "
  "columns. `agrees`: loss and gradient norms are the peer's. Others: seconds, times those of warpjax as in README."
)


def of(rows: Sequence[Row], about: Mapping[str, Any], command: str, before: Mapping[str, Any] | None) -> dict[str, Any]:
  """The record of a machine, with further cases from an earlier record of the same machine.

  Args:
    rows: As `ratios.rows` yields them.
    about: What was measured on, as `experiments.benchmark.machine` says it.
    command: The command line.
    before: The earlier record, or None.

  Returns:
    A JSON object; `cases` holds the rows, each with the date, commit and command of its measurement, and `rows` their
    cells. `command` is without `--only`, since cases may be measured apart.
  """
  stamp = {key: about[key] for key in ("date", "commit") if key in about}
  whole = " ".join(
    word for word in command.split() if not word.startswith("--only=")
  )  # also holds for the cases of earlier records
  cases = dict((before or {}).get("cases", {}))
  for name in dict.fromkeys(row["case"] for row in rows):
    cases[name] = [{**row, **stamp, "command": command} for row in rows if row["case"] == name]
  cases = {name: cases[name] for name in CASES if name in cases}
  rounds = min((row["rounds"] for each in cases.values() for row in each if "rounds" in row), default=0)
  return {
    "title": TITLE,
    "text": TEXT.format(rounds=rounds),
    "command": whole,
    **stamp,
    "versions": versions(),
    "machine": about["machine"],
    "columns": list(COLUMNS),
    "rows": [cells(name, each) for name, each in cases.items()],
    "cases": cases,
  }


def versions() -> dict[str, str]:
  """The versions of the packages that take part and are installed."""
  installed = {dist.name for dist in metadata.distributions()}
  return {name: metadata.version(name) for name in ("jax", "flax", "torch", "higher", "torchopt") if name in installed}


def cells(name: str, rows: Sequence[Row]) -> list[str]:
  """The line of one case."""
  timed = {row["method"]: row for row in rows if "seconds" in row}
  first = CASES[name].peers[0]
  peer, ours = timed.get(first), [timed.get(path) for path in PATHS]
  label = PEERS[first] if first != "torch" else ""
  gigabytes = "" if peer is None else f"{peer['peak_bytes'] / 1e9:.2f} GB"
  times = [] if peer is None else [f"{row['peak_bytes'] / peer['peak_bytes']:.1f}" for row in ours if row]
  others = [row for method, row in timed.items() if method not in (first, *PATHS)]
  return [
    CASES[name].title,
    "" if peer is None else " ".join(filter(None, [_seconds(peer["seconds"]), label])),
    *(_speedup(row) for row in ours),
    gigabytes,
    ", ".join(times),
    _agreement([row for row in timed.values() if "agrees" in row]),
    ", ".join(f"{NAMES.get(row['method'], row['method'])} {row['ratio']:.2g}" for row in others),
  ]


def _agreement(rows: Sequence[Row]) -> str:
  wrong = [row["method"] for row in rows if not row["agrees"]]
  return f"not {', '.join(wrong)}" if wrong else "yes" if rows else ""


def _speedup(row: Row | None) -> str:
  if row is None or "speedup" not in row:
    return ""
  return "{speedup:.3g} ({speedup_low:.3g} to {speedup_high:.3g})".format_map(row)


def _seconds(value: float) -> str:
  return f"{value:.2f} s" if value >= 0.1 else f"{1e3 * value:.2g} ms"
