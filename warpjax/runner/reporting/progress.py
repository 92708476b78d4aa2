"""What a person sees of a run, and how they stop it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from warpjax.runner.machine import interrupts

Report = Callable[[int, Mapping[str, float]], None]


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

  Args:
    total: Units in all.
    first: Units that are done.
    description: What runs.
    unit: What is counted, in the plural.
    seconds_between_lines: Where there is no terminal.
    always: Whether lines begin at once and have an end; otherwise what takes less than that many seconds prints none.
    shown: Whether anything is.

  Yields:
    `(done, values) -> None`, to be called with the units done.
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
  last = [float("-inf") if always else time.monotonic()]

  def report(step: int, values: Mapping[str, float]) -> None:
    now = time.monotonic()
    if (always and step >= total) or now - last[0] >= seconds_between:
      last[0] = now
      shown = "".join(f", {name} {value:.4g}" for name, value in values.items())
      print(f"{description}: {step}/{total} {unit}{shown}", flush=True)

  return report


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], int]]:
  """Turns a first SIGTERM or SIGINT into a question that can be asked; a second one exits at once.

  A signal that nobody has asked about when the context ends is raised again, so that none is lost.

  Yields:
    `() -> int`: the number of the signal that came, 0 while none has.
  """
  came: list[int] = []
  answered: list[int] = []

  def handle(number: int, frame: Any) -> None:
    del frame
    if came:
      os._exit(128 + number)
    came.append(number)
    # Not print, which fails where the signal meets another print.
    os.write(2, b"Stopping once the meta-steps under way are done and saved; a second signal stops at once.\n")

  def asked() -> int:
    answered.extend(came)
    return answered[0] if answered else 0

  numbers = filter(interrupts.heard, (signal.SIGTERM, signal.SIGINT))
  before = {number: signal.signal(number, handle) for number in numbers}
  try:
    yield asked
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  if came and not answered:
    signal.raise_signal(came[0])
