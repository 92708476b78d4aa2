"""Runs killed without warning: the same command goes on, and ends as the run that nobody killed, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from tests.runner.commands import alive
from warpjax.runner import workdir

# One of them chooses its checkpoint on validation tasks.
METHODS = {"maml": {}, "warp_leap_offline": {}, "imaml": {}, "fomaml": {"eval.val_tasks": 2}}
SAVING = "*.orbax-checkpoint-tmp*"


def arguments(method, path, num_meta_steps):
  settings = {
    "network.features": "(4,)",
    "tasks_per_step": 2,
    "eval.num_tasks": 2,
    "inner.num_steps": 2,
    "eval.num_steps": 2,
    "steps_per_dispatch": 4,
    "checkpoint_every": 4,
    "num_meta_steps": num_meta_steps,
    **METHODS[method],
  }
  given = [f"--config.{name}={value}" for name, value in settings.items()]
  return [f"--config=configs/sinusoid.py:{method}", f"--workdir={path}", *given]


def sha256(path, step):
  """Of every leaf of the state, as it was recorded in the checkpoint; a restore recomputes it."""
  return json.loads((path / "checkpoints" / str(step) / "record" / "metadata").read_text())["sha256"]


def finish(commands, method, path, num_meta_steps):
  done = commands.run("experiments.train", arguments(method, path, num_meta_steps))
  assert done.status == 0, done.stderr
  return done.stdout


def assert_same_end(path, other, num_meta_steps):
  """Parameters and everything else of the state, result, metrics: nothing but the clock may differ."""
  assert sha256(path, num_meta_steps) == sha256(other, num_meta_steps)
  result, expected = ({**workdir.read_json(p / "result.json"), "wall_seconds": 0} for p in (path, other))
  assert result == expected
  rows, wanted = ([{**row, "seconds": 0} for row in workdir.read_metrics(p)] for p in (path, other))
  assert rows == wanted
  steps = list(range(4, num_meta_steps + 1, 4))
  for split in {row["split"] for row in rows}:
    assert [row["step"] for row in rows if row["split"] == split] == steps  # none twice


def kill(commands, method, path, num_meta_steps, moment):
  """Starts the command and kills it once `moment()` says so; whether it was killed before it ended by itself."""
  pid = commands.start("experiments.train", arguments(method, path, num_meta_steps))
  while not moment() and not (path / "result.json").exists() and alive(pid):
    time.sleep(0.0005)
  os.kill(pid, signal.SIGKILL)
  return commands.wait(pid).status == -signal.SIGKILL


def kill_in_a_save(commands, method, path, num_meta_steps):
  """Tries until a save was cut short, which its leftover shows; how many kills that took."""
  for attempt in range(1, 30):
    saving = lambda: any((path / "checkpoints").glob(SAVING)) if (path / "checkpoints").exists() else False
    assert kill(commands, method, path, num_meta_steps, saving), "the run ended before a save could be met"
    if saving():
      return attempt
  raise AssertionError("no save was cut short")


QUICK = ("fomaml",)


@pytest.mark.parametrize(
  "method", [*QUICK, *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m not in QUICK)]
)
def test_killed_once(commands, tmp_path, method):
  """The first inside a save, the others between a line of metrics and the next."""
  steps, path = 40, tmp_path / "killed"
  finish(commands, method, tmp_path / "whole", steps)
  if method == "maml":
    kill_in_a_save(commands, method, path, steps)
  else:
    assert kill(commands, method, path, steps, lambda: len(workdir.read_metrics(path)) >= 3)
  printed = finish(commands, method, path, steps)
  assert "Resuming" in printed or method == "maml"  # a first save that was cut short leaves nothing to resume
  assert not list((path / "checkpoints").glob(SAVING))
  assert_same_end(path, tmp_path / "whole", steps)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_twenty_times(commands, tmp_path, method):
  """At moments drawn over the whole length of a run, start-up and compilation included, and once inside a save."""
  steps, moments = 2000, random.Random(f"kills of {method}")
  begun = time.monotonic()
  finish(commands, method, tmp_path / "whole", steps)
  length, kills, chain = time.monotonic() - begun, 0, 0
  path = tmp_path / "chain_0"
  kills += kill_in_a_save(commands, method, path, steps)
  while kills < 20:
    end = time.monotonic() + moments.uniform(0.0, length)
    if kill(commands, method, path, steps, lambda end=end: time.monotonic() >= end):
      kills += 1
    if (path / "result.json").exists():  # it was done before its twentieth kill: compare, and kill another
      finish(commands, method, path, steps)
      assert_same_end(path, tmp_path / "whole", steps)
      chain += 1
      path = tmp_path / f"chain_{chain}"
  finish(commands, method, path, steps)
  assert_same_end(path, tmp_path / "whole", steps)
