"""The process of one peer, which imports what a user of that peer would: python -m experiments.peers.worker SOCKET."""

from __future__ import annotations

import math
import os
import pathlib
import resource
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from experiments.peers.cases import TORCH, Case

AT_LEAST = 0.1  # seconds of each turn, long against waking up and cold caches
RUN, PEAK = "run", "peak"


def serve(connection: Connection) -> None:
  """Receives a peer's name and a case, sends what it computes, and then answers each request until the parent is done.

  To `RUN` it answers the seconds of a meta-step, the mean of several in a row where they are short. To `PEAK` it
  answers the largest number of bytes that this process has had in memory. An error is sent as text.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and closes the connection
  os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share one GPU
  os.environ["JAX_ENABLE_COMPILATION_CACHE"] = (
    "false"  # a cached program would keep the compiler's memory out of the peak
  )
  try:
    peer = _peer(*connection.recv())
    times = math.ceil(AT_LEAST / _mean_seconds(peer, 1))
    connection.send(peer.facts)
    while True:
      connection.send(peak_bytes() if connection.recv() == PEAK else _mean_seconds(peer, times))
  except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent is done
    return
  except Exception as error:
    connection.send(f"{type(error).__name__}: {error}")


def _peer(name: str, case: Case) -> Any:
  if name in TORCH:
    from experiments.peers import torch_peers

    return torch_peers.make(name, case)
  from experiments.peers import jax_peers

  return jax_peers.make(name, case)


def _mean_seconds(peer: Callable[[], object], times: int) -> float:
  start = time.perf_counter()
  for _ in range(times):
    peer()
  return (time.perf_counter() - start) / times


def peak_bytes() -> int:
  """The most bytes that this process has had in memory.

  Linux's `ru_maxrss` also counts the memory of the parent process, if that was larger.
  """
  status = pathlib.Path("/proc/self/status")
  if status.exists():
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
  size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return size if sys.platform == "darwin" else 1024 * size


if __name__ == "__main__":
  serve(Connection(int(sys.argv[1])))
