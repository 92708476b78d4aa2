"""Many hosts: each runs one process with the same command; the first host writes the files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from warpjax.runner import workdir
from warpjax.runner.machine import interrupts

# How long a process waits for the others at the start. JAX itself would wait longer and abort without a message.
START_SECONDS = 300.0
_SAY_AFTER_SECONDS = 1.0
# How long a finished process waits for the others to finish, before it counts them as lost.
_SHUTDOWN_SECONDS = 60
BROKEN_PIPE = 128 + signal.SIGPIPE
"""Exit status after the reader of standard output, such as `head`, has ended; no message is needed."""
_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|coordination service|heartbeat|task died", re.I)


class StartError(ValueError):
  """The processes of a run could not be connected; none has begun."""


def connect(
  coordinator: str | None, num_processes: int | None, process_id: int | None, *, seconds: float | None = None
) -> None:
  """Joins the processes of a run; it must be called before a device is used.

  Args:
    coordinator: `"HOST:PORT"` of the first process; `"auto"` if jax.distributed can detect all three arguments (SLURM,
      TPU pods, Kubernetes, Open MPI); None for a run of one process.
    num_processes: Number of processes; required with an address.
    process_id: Index of this process, from 0; required with an address.
    seconds: Time limit for the others to join; None for `START_SECONDS`.

  Raises:
    ValueError: For inconsistent arguments, or an "auto" that detects no cluster.
    StartError: If the processes cannot be connected; the message has the reason and a remedy.
  """
  _check(coordinator, num_processes, process_id)
  if coordinator is None:
    return
  if coordinator != "auto":
    _check_address(coordinator, process_id)
  _join(coordinator, num_processes, process_id, START_SECONDS if seconds is None else seconds)
  devices, expected = _count_devices(coordinator), jax.process_count() * jax.local_device_count()
  if devices != expected:
    raise ValueError(
      f"every process must have the same number of devices; process {jax.process_index()} has "
      f"{jax.local_device_count()} of {devices}, and there are {jax.process_count()} processes."
    )
  try:
    largest(0)  # the first message to the others
  except (RuntimeError, ValueError) as error:
    raise StartError(_not_connected(error, coordinator)) from None


def _join(coordinator: str, num_processes: int | None, process_id: int | None, seconds: float) -> None:
  """Connects in a thread, since the connection's C++ ignores signals and ends the process at its own time limit."""
  address, failures = None if coordinator == "auto" else coordinator, list[Exception]()

  def initialize() -> None:
    try:
      jax.distributed.initialize(
        address,
        num_processes,
        process_id,
        initialization_timeout=int(seconds) + 60,
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
      )
    except Exception as error:
      failures.append(error)

  thread, begun, said = threading.Thread(target=initialize, daemon=True), time.monotonic(), False
  thread.start()
  while thread.is_alive():
    thread.join(0.2)  # in slices, so that Ctrl-C is handled
    waited = time.monotonic() - begun
    if thread.is_alive() and waited > seconds:
      everyone = "every process" if address is None else f"{num_processes} processes, --process_id=0 first,"
      raise StartError(
        f"--coordinator={coordinator} could not be joined by all processes in {seconds:.0f} s. Start {everyone} within "
        "that time. Process 0 must run at that address, and its port be reachable from the others."
      )
    if waited > _SAY_AFTER_SECONDS and not said:
      said = True
      whom = "the other processes" if address is None else f"{num_processes} processes at {address}"
      print(f"Waiting for {whom}.", file=sys.stderr, flush=True)
  for error in failures:
    if isinstance(error, ValueError):
      raise ValueError(f"--coordinator={coordinator} found no cluster to join: {error}") from None
    if not isinstance(error, RuntimeError):
      raise error
    raise StartError(
      f"--coordinator={coordinator} could not be joined ({_first_line(error)}). Process 0 must run there, and its port "
      "be reachable from this machine."
    ) from None


def _count_devices(coordinator: str) -> int:
  try:
    return jax.device_count()
  except RuntimeError as error:
    if _LOST.search(str(error)):  # a backend whose start connects the processes
      raise StartError(_not_connected(error, coordinator)) from None
    raise StartError(f"JAX cannot use the devices of this process ({_first_line(error)}).") from None


def is_first() -> bool:
  """Whether this process writes and prints."""
  return jax.process_index() == 0


def say(message: str, *, error: bool = False) -> None:
  """Prints on the first host, to standard output or error."""
  if is_first():
    print(message, file=sys.stderr if error else sys.stdout, flush=True)


def from_first(function: Callable[[], Any]) -> Any:
  """Calls a function on the first host alone, and returns its result, a JSON object, on every host."""
  if jax.process_count() == 1:
    return function()
  from jax.experimental import multihost_utils

  data = np.frombuffer(json.dumps(function() if is_first() else None).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(data.size)))
  padded = np.resize(data, size)  # only the first host's data are used
  return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8).tobytes())


def largest(number: int) -> int:
  """The largest of the hosts' numbers, so that a signal to one host stops all."""
  if jax.process_count() == 1:
    return number
  from jax.experimental import multihost_utils

  return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def check_same(what: str, own: str) -> None:
  """Raises a ValueError, with the keys that differ, on a host whose JSON is not the first host's."""
  differing = "; ".join(workdir.differences(json.loads(from_first(lambda: own)), json.loads(own)))
  if differing:
    raise ValueError(f"{what} of process {jax.process_index()} must be the first's. It differs in: {differing}.")


def lost_peer(error: BaseException) -> str | None:
  """The message for an error caused by the end of another host; None for any other error."""
  if not jax.distributed.is_initialized() or isinstance(error, OSError | StartError) or not _LOST.search(str(error)):
    return None
  return (
    f"another process of this run has ended or cannot be reached ({_first_line(error)}). "
    "Run the same command on every host again: the run continues from its newest checkpoint."
  )


def leave(status: int) -> NoReturn:
  """Ends the process. After success it leaves in order, because other hosts wait for it. Otherwise it ends at once."""
  interrupts.ignore()  # all work is done
  try:
    sys.stdout.flush()
    sys.stderr.flush()
  except BrokenPipeError:
    status = BROKEN_PIPE
  if status == 0:
    sys.exit(0)
  os._exit(status)


def _check_address(coordinator: str, process_id: int | None) -> None:
  """Raises for an address at which the connection's C++ would end the process."""
  host, port = coordinator.rsplit(":", 1)
  try:
    socket.getaddrinfo(host.strip("[]"), int(port))
  except (OSError, UnicodeError) as error:  # the second for what cannot be a name
    raise StartError(
      f"--coordinator={coordinator}: the name {host!r} does not resolve to an address ({_reason(error)}). Give the "
      "address of process 0's machine in its place, or add the name to /etc/hosts."
    ) from None
  if process_id == 0:
    with socket.socket() as tried:
      tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a run before may linger there
      try:
        tried.bind(("", int(port)))
      except OSError as error:
        raise StartError(
          f"--coordinator={coordinator}: process 0 cannot listen at port {port} ({_reason(error)}). Choose another "
          "port, the same for every process."
        ) from None


def _not_connected(error: Exception, coordinator: str) -> str:
  """The reason of a failed start, and a remedy: most often a machine's own name does not resolve."""
  name, said = socket.gethostname(), _first_line(error)
  try:
    address = str(socket.getaddrinfo(name, None)[0][4][0])
  except OSError:
    return (
      f"this machine's own name, {name!r}, does not resolve to an address, which the connection between the processes "
      f"needs. Add the line '{_own_address(coordinator)} {name}' to /etc/hosts, and run the same command on every host "
      f"again. ({said})"
    )
  return (
    f"the processes of this run could not be connected ({said}). The name of each machine must resolve to an address "
    f"at which the others reach it; {name!r} is {address} on this machine. Correct it in /etc/hosts, and run the same "
    "command on every host again."
  )


def _own_address(coordinator: str) -> str:
  """The address of the interface that leads to the coordinator; nothing is sent."""
  host, _, port = coordinator.rpartition(":")
  with contextlib.suppress(OSError, ValueError):
    family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as tried:
      tried.connect(address)
      return str(tried.getsockname()[0])
  return "ADDRESS"


def _reason(error: OSError | UnicodeError) -> str:
  return getattr(error, "strerror", None) or str(error)


def _first_line(error: BaseException) -> str:
  return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  counts = {"num_processes": num_processes, "process_id": process_id}
  if coordinator in (None, "auto"):
    for name, value in counts.items():
      if value is not None:
        raise ValueError(f"--{name} needs --coordinator=HOST:PORT; got --{name}={value}, --coordinator={coordinator}.")
    return
  if not re.fullmatch(r"\S+:\d{1,5}", str(coordinator)):
    raise ValueError(f"--coordinator must be HOST:PORT or auto; got {coordinator!r}.")
  if not 1 <= int(str(coordinator).rsplit(":", 1)[1]) <= 65535:
    raise ValueError(f"--coordinator must have a port from 1 to 65535; got {coordinator!r}.")
  for name, value in counts.items():
    if value is None:
      raise ValueError(f"--{name} is missing; --coordinator={coordinator} needs it.")
  if num_processes is None or num_processes < 1 or process_id is None or not 0 <= process_id < num_processes:
    raise ValueError(f"--process_id must be 0 to --num_processes - 1; got {process_id} of {num_processes}.")
