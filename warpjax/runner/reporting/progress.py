"""Progress bars, messages while waiting, and signals that stop a run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from warpjax.runner.machine import interrupts

Report = Callable[[int, Mapping[str, float]], None]
WAIT_SECONDS = 3.0


@contextlib.contextmanager
def waiting(what: str, *, shown: bool = True) -> Iterator[None]:
  """Prints on stderr what the program waits for, if that takes more than `WAIT_SECONDS`.

  Args:
    what: What is being done, such as "Compiling the meta-step".
    shown: Whether to print at all.
  """
  timer = threading.Timer(WAIT_SECONDS, lambda: print(f"{what} ...", file=sys.stderr, flush=True))
  timer.daemon = True
  if shown:
    timer.start()
  try:
    yield
  finally:
    timer.cancel()


@contextlib.contextmanager
def bar(
  total: int,
  first: int,
  description: str,
  *,
  unit: str = "meta-steps",
  seconds_between_lines: float = 15.0,
  always: bool = True,
  shown: bool = True,
) -> Iterator[Report]:
  """A progress bar on a terminal, plain lines otherwise.

  The lines go to stdout, or to stderr for work that prints only if it takes long.

  Args:
    total: Number of units.
    first: Units already done.
    description: Name of the work.
    unit: Name of the units, in the plural.
    seconds_between_lines: Seconds between plain lines.
    always: Whether to print a first and a last line; otherwise work shorter than those seconds prints no line.
    shown: Whether to print at all.

  Yields:
    `(done, values) -> None`, to be called with the number of units done.
  """
  if not shown:
    yield lambda step, values: None
    return
  if not sys.stderr.isatty():
    yield _lines(total, description, unit, seconds_between_lines, always)
    return
  from tqdm import tqdm

  with tqdm(total=total, initial=first, desc=description, unit=unit.removesuffix("s"), dynamic_ncols=True) as progress:

    def report(step: int, values: Mapping[str, float]) -> None:
      progress.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
      progress.update(step - progress.n)

    yield report


def _lines(total: int, description: str, unit: str, seconds_between: float, always: bool) -> Report:
  last = float("-inf") if always else time.monotonic()

  def report(step: int, values: Mapping[str, float]) -> None:
    nonlocal last
    now = time.monotonic()
    if (always and step >= total) or now - last >= seconds_between:
      last = now
      shown = "".join(f", {name} {value:.4g}" for name, value in values.items())
      print(f"{description}: {step}/{total} {unit}{shown}", file=sys.stdout if always else sys.stderr, flush=True)

  return report


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], int]]:
  """Stores a first SIGTERM or SIGINT for the caller to query; a second one exits at once.

  A signal that was not queried when the context ends is raised again, so that none is lost.

  Yields:
    `() -> int`: the number of the received signal, or 0.
  """
  received: list[int] = []
  reported: list[int] = []

  def handle(number: int, frame: Any) -> None:
    del frame
    if received:
      os._exit(128 + number)
    received.append(number)
    # Not print, which fails if the signal interrupts another print.
    os.write(2, b"Stopping once the meta-steps under way are done and saved; a second signal stops at once.\n")

  def query() -> int:
    reported.extend(received)
    return reported[0] if reported else 0

  numbers = filter(interrupts.can_handle, (signal.SIGTERM, signal.SIGINT))
  before = {number: signal.signal(number, handle) for number in numbers}
  try:
    yield query
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if received and not reported:
    signal.raise_signal(received[0])
