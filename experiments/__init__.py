"""Experiments: a config in, a workdir with a result out."""

import os
import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:

  def _leave(number: int, frame: object) -> None:
    """As `warpjax.runner.machine.interrupts.at_once`, before the seconds that importing warpjax takes."""
    os.write(2, b"Interrupted; what was saved before stays.\n")
    os._exit(128 + number)

  signal.signal(signal.SIGINT, _leave)
