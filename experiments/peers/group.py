"""The processes of a comparison: all alive, one at work at a time, in an order that turns."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from experiments.peers.cases import TORCH, Case

OURS, YARDSTICK = "warpjax", "matmul"
WARM_UP = 2
AT_LEAST = 0.1  # seconds of each turn, so that waking up and cold caches are little of it
_NEW = multiprocessing.get_context("spawn")


class Timed(NamedTuple):
  """Of one case: seconds of each peer in each round, what each says of itself, and why a peer is missing."""

  seconds: dict[str, list[float]]
  facts: dict[str, dict[str, Any]]
  missing: dict[str, str]


class Worker:
  """A peer's process."""

  def __init__(self, name: str, case: Case):
    self.name = name
    self.connection, theirs = _NEW.Pipe()
    self.process = _NEW.Process(target=serve, args=(theirs, name, case), daemon=True)
    self.process.start()
    theirs.close()

  def answer(self) -> Any:
    """The next answer of the process.

    Raises:
      RuntimeError: With its error, when it ended instead.
    """
    try:
      answer = self.connection.recv()
    except (EOFError, ConnectionResetError):
      self.process.join()
      raise RuntimeError(f"exit status {self.process.exitcode}") from None
    if isinstance(answer, str):
      raise RuntimeError(answer)
    return answer

  def run(self) -> float:
    """One meta-step's seconds."""
    self.connection.send(None)
    return self.answer()

  def close(self) -> None:
    """Ends the process."""
    self.connection.close()
    self.process.join(30)
    self.process.kill()
    self.process.join()


def serve(connection: Connection, name: str, case: Case) -> None:
  """What a peer's process does: it says what it computes, and then times a meta-step whenever it is asked.

  A short meta-step is run several times in a row, and its mean counts. An error is sent as text.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and closes the connection
  os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share one GPU
  try:
    peer = _peer(name, case)
    seconds = [_mean_seconds(peer, 1) for _ in range(WARM_UP)]
    times = math.ceil(AT_LEAST / seconds[-1])
    connection.send(peer.facts)
    while True:
      connection.recv()
      connection.send(_mean_seconds(peer, times))
  except (EOFError, BrokenPipeError):  # the parent is done
    return
  except Exception as error:
    connection.send(f"{type(error).__name__}: {error}")


def _peer(name: str, case: Case) -> Any:
  if name in TORCH:
    from experiments.peers import torch_peers

    return torch_peers.make(name, case)
  from experiments.peers import jax_peers

  jax_peers.use_precision(case)
  if name == OURS:
    jax_peers.use_cores(case)
  return jax_peers.make(name, case)


def _mean_seconds(peer: Callable[[], object], times: int) -> float:
  start = time.perf_counter()
  for _ in range(times):
    peer()
  return (time.perf_counter() - start) / times


def time_case(case: Case, rounds: int, *, say: Callable[[str], object] = print) -> Timed:
  """Times every peer of a case, a tenth of a second or a meta-step each a round, the order turning by one each round.

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
