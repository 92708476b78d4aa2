"""Profiles a meta-step by layer and operation.

  warpjax profile --config=configs/omniglot.py:maml_cpu

Times are those of XLA's profiler for each operation. Operations that run in parallel add up to more than the elapsed
time.
"""

from __future__ import annotations

from absl import flags

from warpjax.runner import cli, profiling
from warpjax.runner.cli import FLAGS
from warpjax.runner.experiment import build
from warpjax.runner.machine import hosts
from warpjax.runner.reporting import progress


def main() -> None:
  """Prints the table."""
  cli.keep_compiled()
  experiment = build(cli.config(), **cli.places())
  with progress.waiting(f"Profiling a meta-step of {experiment.run.name}"):
    measured = profiling.profile(experiment)
  hosts.say(profiling.table(*measured, FLAGS.lines))


def command() -> None:
  """Defines the flags and runs."""
  cli.define(config=True)
  flags.DEFINE_integer("lines", 30, "Operations to print.", lower_bound=1)
  cli.run(main)
