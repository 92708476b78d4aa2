"""Training for a long time, watched from outside: its memory must stay flat, its speed as it was.

Three minutes, or as many as SOAK_MINUTES says. Linux only, since it reads the memory from /proc.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from warpjax.runner import workdir

MINUTES = float(os.environ.get("SOAK_MINUTES", "3"))
SETTINGS = ("num_meta_steps=1000000000", "steps_per_dispatch=500", "checkpoint_every=5000")
WARM_UP, EVERY = 0.2, 2.0  # the share of the time that is not looked at, and seconds between two looks
MOST_GROWTH, MOST_SLOWING = 0.02, 0.10


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 900)
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads the memory from /proc")
def test_memory_and_speed_stay_as_they_were(tmp_path):
  command = [sys.executable, "-m", "experiments.train", "--config=configs/sinusoid.py:maml", f"--workdir={tmp_path}"]
  command += [f"--config.{setting}" for setting in SETTINGS]
  # In a group of its own, since a Ctrl-C at the terminal goes to the group: it is told once, below.
  process = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0)
  looks, begun = [], time.monotonic()
  try:
    while time.monotonic() - begun < 60 * MINUTES:
      time.sleep(EVERY)
      assert process.poll() is None, "the training ended by itself"
      rows = workdir.read_metrics(tmp_path)
      looks.append((resident_megabytes(process.pid), busy_seconds(process.pid), rows[-1]["step"] if rows else 0))
  finally:
    process.send_signal(signal.SIGTERM)
    status = process.wait(600)
  assert status == 128 + signal.SIGTERM
  memory, busy, steps = np.array(looks).T
  moved = np.diff(steps) > 0
  seconds = np.diff(busy)[moved] / np.diff(steps)[moved]
  found = {"meta_steps": int(steps[-1]), "megabytes": ends(memory), "seconds_per_meta_step": ends(seconds)}
  print(json.dumps({"minutes": MINUTES, **found}, indent=2))
  assert growth(memory) <= MOST_GROWTH and growth(seconds) <= MOST_SLOWING, found


def test_the_last_quarter_is_compared_with_the_first_after_the_warm_up():
  assert growth(np.array([50.0, 100.0, 100.0, 100.0, 101.0])) == pytest.approx(0.01)
  assert growth(np.array([9.0, 1.0, 1.0, 1.0, 2.0])) == pytest.approx(1.0)


def growth(values):
  first, last = ends(values)
  return last / first - 1


def ends(values):
  """The medians of the first and the last quarter after the warm-up."""
  warm = values[int(WARM_UP * len(values)) :]
  quarter = max(1, len(warm) // 4)
  return float(np.median(warm[:quarter])), float(np.median(warm[-quarter:]))


def resident_megabytes(pid):
  """The resident memory of a process."""
  for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
    if line.startswith("VmRSS:"):
      return int(line.split()[1]) / 1024
  raise ValueError(f"process {pid} has ended")


def busy_seconds(pid):
  """The seconds that cores have spent on a process; other work on the machine does not count."""
  fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
  return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
