"""Handles Ctrl-C with one line and exit status 130. It is imported first, and therefore imports little."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

INTERRUPTED = 128 + signal.SIGINT
_LINE = b"Interrupted; what was saved before stays.\n"

_received: list[int] = []


class Interrupted(SystemExit):
  """A signal stopped training, whose state is saved; if it is not caught, the process ends with the status 128 + n.

  Attributes:
    signal: The number of the signal.
  """

  def __init__(self, number: int):
    super().__init__(128 + number)
    self.signal = number


def at_once() -> None:
  """From now on SIGINT ends the process at once; used while nothing can be lost, such as during imports."""
  _handle(lambda number, frame: leave_interrupted())


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """Raises KeyboardInterrupt at a SIGINT, so that incomplete files are removed; a second one ends the process."""
  before = _handle(_raise)
  _received.clear()
  try:
    yield
  finally:
    if before is not None:
      signal.signal(signal.SIGINT, before)


def received() -> bool:
  """Whether a SIGINT arrived in the innermost `raised`, even if a library has caught its exception."""
  return bool(_received)


def ignore() -> None:
  """From now on SIGINT is ignored."""
  _handle(signal.SIG_IGN)


def can_handle(number: int) -> bool:
  """Whether this thread may handle the signal: the main thread may, unless the process was started to ignore it."""
  # A shell starts background jobs with SIGINT ignored. None means that Python did not set the handler.
  main = threading.current_thread() is threading.main_thread()
  return main and signal.getsignal(number) not in (None, signal.SIG_IGN)


def leave_interrupted() -> NoReturn:
  """Ends the process at once, without teardown, since XLA may still compute."""
  with contextlib.suppress(Exception):
    sys.stdout.flush()
    sys.stderr.flush()
  with contextlib.suppress(OSError):
    os.write(2, _LINE)  # not print, which fails if the signal interrupts another print
  os._exit(INTERRUPTED)


def _raise(number: int, frame: Any) -> None:
  del frame
  if _received:
    leave_interrupted()
  _received.append(number)
  raise KeyboardInterrupt


def _handle(handler: Any) -> Any:
  """Sets the handler of SIGINT if possible; returns the previous one, or None if nothing changed."""
  return signal.signal(signal.SIGINT, handler) if can_handle(signal.SIGINT) else None
