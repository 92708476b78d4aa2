"""Ctrl-C: one line and exit status 130, whenever it comes. Imported before anything else, so it imports little."""

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

_came: list[int] = []


class Interrupted(SystemExit):
  """A signal stopped training, which is saved; where nobody catches it, the process ends with the status 128 + n.

  Attributes:
    signal: The number of the signal.
  """

  def __init__(self, number: int):
    super().__init__(128 + number)
    self.signal = number


def at_once() -> None:
  """From now on SIGINT ends the process at once; for the time in which nothing is begun, such as imports."""
  _handle(lambda number, frame: leave_interrupted())


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """SIGINT is a KeyboardInterrupt inside, so that what is half written is removed; a second one ends the process."""
  before = _handle(_raise)
  _came.clear()
  try:
    yield
  finally:
    if before is not None:
      signal.signal(signal.SIGINT, before)


def came() -> bool:
  """Whether a SIGINT was raised in the innermost `raised`, whatever became of it."""
  return bool(_came)


def ignore() -> None:
  """From now on SIGINT does nothing."""
  _handle(signal.SIG_IGN)


def heard(number: int) -> bool:
  """Whether this thread may handle the signal: the main thread may, unless the process was started to ignore it."""
  # A shell starts its background jobs with SIGINT ignored. None is a handler that Python did not set.
  main = threading.current_thread() is threading.main_thread()
  return main and signal.getsignal(number) not in (None, signal.SIG_IGN)


def leave_interrupted() -> NoReturn:
  """Ends the process at once, since XLA may still compute."""
  with contextlib.suppress(Exception):
    sys.stdout.flush()
    sys.stderr.flush()
  with contextlib.suppress(OSError):
    os.write(2, _LINE)  # not print, which fails where the signal meets another print
  os._exit(INTERRUPTED)


def _raise(number: int, frame: Any) -> None:
  del frame
  if _came:
    leave_interrupted()
  _came.append(number)
  raise KeyboardInterrupt


def _handle(handler: Any) -> Any:
  """Sets the handler of SIGINT where it is `heard`; returns the one before, None where nothing changed."""
  return signal.signal(signal.SIGINT, handler) if heard(signal.SIGINT) else None
