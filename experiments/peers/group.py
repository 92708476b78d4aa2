"""The processes of a comparison: all alive, one at work at a time, in an order that turns."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.peers.cases import Case

ROOT = pathlib.Path(__file__).parents[2]
OURS, YARDSTICK = "warpjax", "matmul"


class Timed(NamedTuple):
  """Of one case: seconds of each peer in each round, what each says of itself, and why a peer is missing."""

  seconds: dict[str, list[float]]
  facts: dict[str, dict[str, Any]]
  missing: dict[str, str]


class Worker:
  """A peer's process."""

  def __init__(self, name: str, case: Case):
    self.name = name
    self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  `close` closes it
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    # The processes share one GPU.
    environment = {**os.environ, "PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "experiments.peers.worker", json.dumps([name, case])]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
    self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
    assert self.process.stdin is not None and self.process.stdout is not None
    self.requests, self.answers = self.process.stdin, self.process.stdout

  def answer(self) -> Any:
    """The next line it prints.

    Raises:
      RuntimeError: With the last line of its errors, when it ended instead.
    """
    if line := self.answers.readline():
      return json.loads(line)
    self.process.wait()
    self.errors.seek(0)
    said = [line for line in self.errors.read().splitlines() if line.strip()]
    raise RuntimeError(said[-1] if said else f"exit status {self.process.returncode}")

  def run(self) -> float:
    """One meta-step's seconds."""
    print(file=self.requests, flush=True)
    return self.answer()

  def close(self) -> None:
    """Ends the process."""
    self.requests.close()
    try:
      self.process.wait(timeout=30)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()
    self.answers.close()
    self.errors.close()


def time_case(case: Case, rounds: int, *, say: Callable[[str], object] = print) -> Timed:
  """Times every peer of a case, a tenth of a second or a meta-step each a round, the order turning by one each round.

  Args:
    case: What they do.
    rounds: How often.
    say: Called with messages for the user.

  Returns:
    What was measured; a peer that cannot start is in `missing`.
  """
  workers: list[Worker] = []
  facts, missing = {}, {}
  try:
    for name in (OURS, YARDSTICK, *case.peers):
      worker = Worker(name, case)
      workers.append(worker)
      try:  # one after the other, so that no compilation disturbs another's warm-up
        facts[name] = worker.answer()
      except RuntimeError as error:
        missing[name] = str(error)
        say(f"{case.name}: {name} is missing: {error}")
    present = [worker for worker in workers if worker.name in facts]
    seconds: dict[str, list[float]] = {worker.name: [] for worker in present}
    for index in range(rounds):
      for worker in turned(present, index):
        seconds[worker.name].append(worker.run())
      latest = ", ".join(f"{name} {values[-1]:.4g} s" for name, values in seconds.items())
      say(f"{case.name}: round {index + 1}/{rounds}, {latest}")
    return Timed(seconds, facts, missing)
  finally:
    for worker in workers:
      worker.close()


def turned(workers: Sequence[Any], by: int) -> list[Any]:
  """The workers, beginning with another one each time."""
  first = by % len(workers)
  return [*workers[first:], *workers[:first]]
