"""The processes of a comparison: all are alive, one works at a time, and the order rotates."""

from __future__ import annotations

import multiprocessing
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.peers import worker
from experiments.peers.cases import Case

OURS, YARDSTICK = "warpjax", "matmul"
ROOT = pathlib.Path(__file__).parents[2]


class Timed(NamedTuple):
  """The times of one case: seconds of each peer in each round, facts about each peer, and why a peer is missing."""

  seconds: dict[str, list[float]]
  facts: dict[str, dict[str, Any]]
  missing: dict[str, str]


class Worker:
  """A peer's process."""

  def __init__(self, name: str, case: Case):
    self.name = name
    self.connection, theirs = multiprocessing.Pipe()
    with theirs:
      command = [sys.executable, "-m", "experiments.peers.worker", str(theirs.fileno())]
      self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
    self.connection.send((name, case))

  def answer(self) -> Any:
    """The next answer of the process.

    Raises:
      RuntimeError: With its error, when it ended instead.
    """
    try:
      answer = self.connection.recv()
    except (EOFError, ConnectionResetError):
      raise RuntimeError(f"exit status {self.process.wait()}") from None
    if isinstance(answer, str):
      raise RuntimeError(answer)
    return answer

  def ask(self, what: str) -> Any:
    """The answer to a request of `worker`."""
    self.connection.send(what)
    return self.answer()

  def close(self) -> None:
    """Ends the process."""
    self.connection.close()
    try:
      self.process.wait(30)
    except subprocess.TimeoutExpired:
      self.process.kill()
      self.process.wait()


def _say(message: str) -> None:
  print(message, flush=True)


def time_case(case: Case, rounds: int, *, say: Callable[[str], object] = _say) -> Timed:
  """Times every peer of a case: a tenth of a second or one meta-step in each round, in an order that rotates.

  A peer that cannot start is in `missing`, which `say` is called with too.
  """
  workers: list[Worker] = []
  facts, missing = {}, {}
  try:
    for name in (OURS, YARDSTICK, *case.peers):
      workers.append(Worker(name, case))
      try:  # one after the other, so that no compilation disturbs another's warm-up
        facts[name] = workers[-1].answer()
      except RuntimeError as error:
        missing[name] = str(error)
        say(f"{case.name}: {name} is missing: {error}")
    present = [worker for worker in workers if worker.name in facts]
    seconds: dict[str, list[float]] = {worker.name: [] for worker in present}
    for index in range(rounds):
      for each in turned(present, index):
        seconds[each.name].append(each.ask(worker.RUN))
      latest = ", ".join(f"{name} {values[-1]:.4g} s" for name, values in seconds.items())
      say(f"{case.name}: round {index + 1}/{rounds}, {latest}")
    for each in present:
      facts[each.name]["peak_bytes"] = each.ask(worker.PEAK)
    return Timed(seconds, facts, missing)
  finally:
    for each in workers:
      each.close()


def turned(workers: Sequence[Any], by: int) -> list[Any]:
  """The workers, beginning with another one each time."""
  first = by % len(workers)
  return [*workers[first:], *workers[:first]]
