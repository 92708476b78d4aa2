"""Finds the fastest way to compute a meta-step on this machine: the number of vmapped tasks, and the convolutions.

  warpjax tune --config=configs/omniglot.py:maml

Prints the time of each choice and the flags of the fastest, and stores it in the user's cache by machine and config.
`warpjax train --tune` starts a new run with it. The choices differ by rounding alone.
"""

from __future__ import annotations

from warpjax.runner import cli
from warpjax.runner.config import settings
from warpjax.runner.machine import tuning


def main() -> None:
  """Runs the command."""
  cli.keep_compiled()
  config, places = settings.resolved(cli.config()), cli.places()
  measured = tuning.measure(config, **places)
  for one in sorted(measured, key=lambda one: one.seconds):
    print(f"{1e3 * one.seconds:10.3f} ms  {tuning.flags_of(one.changes)}")
  tuning.remember(config, measured, **places)


def command() -> None:
  """Defines the flags and runs."""
  cli.define(config=True)
  cli.run(main)
