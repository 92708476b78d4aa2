"""Trains for a long time and watches the process from outside: its memory must stay flat, its speed as it was.

  python -m experiments.soak --workdir=runs/soak --minutes=60

Runs `experiments.train` on sine waves, with a checkpoint every few seconds, and stops it by SIGTERM. Linux only, since
it reads the memory from /proc. Writes `soak.json` into the workdir, and exits with 1 if memory or time grew.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS

SETTINGS = ("num_meta_steps=1000000000", "steps_per_dispatch=500", "checkpoint_every=5000")
MOST_GROWTH, MOST_SLOWING = 0.02, 0.10


def soak(directory: str, minutes: float, config: str, *, warm_up: float = 0.2, every: float = 2.0) -> dict[str, Any]:
  """Trains for so many minutes.

  Args:
    directory: A new workdir.
    minutes: How long.
    config: `FILE.py:METHOD`.
    warm_up: The share of the time that is not looked at.
    every: Seconds between two looks.

  Returns:
    What was seen: medians of the first and last quarter after the warm-up, in megabytes and in busy seconds of a core
    a meta-step, and `memory_growth` and `slowing` as fractions.

  Raises:
    ValueError: If the training ended by itself.
  """
  command = [sys.executable, "-m", "experiments.train", f"--config={config}", f"--workdir={directory}"]
  command += [f"--config.{setting}" for setting in SETTINGS]
  # In a group of its own, since a Ctrl-C at the terminal goes to the group: it is told once, below.
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0)
  looks, begun = [], time.monotonic()
  try:
    while time.monotonic() - begun < 60 * minutes:
      time.sleep(every)
      if process.poll() is not None:
        raise ValueError(f"the training ended by itself with status {process.returncode}; run it alone to see why.")
      rows = workdir.read_metrics(pathlib.Path(directory))
      looks.append((resident_megabytes(process.pid), busy_seconds(process.pid), rows[-1]["step"] if rows else 0))
  finally:
    process.send_signal(signal.SIGTERM)
    status = process.wait(600)
  memory, busy, steps = np.array(looks).T
  moved = np.diff(steps) > 0
  seconds = (np.diff(busy)[moved] / np.diff(steps)[moved]).tolist()
  found = compare(memory.tolist(), seconds, warm_up)
  return {"minutes": minutes, "meta_steps": int(steps[-1]), "exit_status": status, **found}


def compare(memory: Sequence[float], seconds: Sequence[float], warm_up: float) -> dict[str, Any]:
  """The last quarter against the first, after the warm-up.

  Example:
    >>> found = compare([50.0, 100.0, 100.0, 100.0, 101.0], [9.0, 1.0, 1.0, 1.0, 2.0], warm_up=0.2)
    >>> found["memory_growth"], found["slowing"]
    (0.01, 1.0)
  """
  first_mb, last_mb = _ends(memory, warm_up)
  first_s, last_s = _ends(seconds, warm_up)
  return {
    "megabytes": [round(first_mb, 2), round(last_mb, 2)],
    "seconds_per_meta_step": [first_s, last_s],
    "memory_growth": round(last_mb / first_mb - 1, 5),
    "slowing": round(last_s / first_s - 1, 5),
    "looks": len(memory),
  }


def resident_megabytes(pid: int) -> float:
  """The resident memory of a process."""
  for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
    if line.startswith("VmRSS:"):
      return int(line.split()[1]) / 1024
  raise ValueError(f"process {pid} has ended")


def busy_seconds(pid: int) -> float:
  """The seconds that cores have spent on a process; other work on the machine does not count."""
  fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ends(values: Sequence[float], warm_up: float) -> tuple[float, float]:
  warm = np.asarray(values[int(warm_up * len(values)) :])
  quarter = max(1, len(warm) // 4)
  return float(np.median(warm[:quarter])), float(np.median(warm[-quarter:]))


def main(argv: Sequence[str]) -> int:
  """Exits with 0, or 1 where memory or time grew."""
  del argv
  with cli.errors_in_one_line():
    found = soak(FLAGS.workdir, FLAGS.minutes, FLAGS.config)
    workdir.write_json(pathlib.Path(FLAGS.workdir) / "soak.json", found)
  print(json.dumps(found, indent=2))
  return int(found["memory_growth"] > MOST_GROWTH or found["slowing"] > MOST_SLOWING)


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_string("workdir", None, "A new workdir.", required=True)
  flags.DEFINE_float("minutes", 60.0, "How long to train.", lower_bound=0.1)
  flags.DEFINE_string("config", "configs/sinusoid.py:maml", "What to train.")
  cli.run(main)
