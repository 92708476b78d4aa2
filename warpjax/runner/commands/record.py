"""Writes the record of a finished run, `results/RECIPE/ROW.json`.

  warpjax record --workdir=runs/omniglot/maml --reason="half the tasks"
  warpjax record --workdir=runs/omniglot/maml --evaluation=20_shots     # a further number of that record
  warpjax record --workdir=runs/omniglot/reptile_cpu --evaluation=5_shots --row=reptile_5shot_cpu

A row's record is replaced by that of a newer run. `warpjax report` then writes RESULTS.md and the tables.
"""

from __future__ import annotations

import pathlib

from absl import flags

from warpjax.runner import cli
from warpjax.runner.cli import FLAGS
from warpjax.runner.reporting import recording, records


def main() -> None:
  """Runs the command."""
  if FLAGS.row and not FLAGS.evaluation:
    raise ValueError("--row needs --evaluation, the evaluation that gives the number of that row.")
  record = recording.make(pathlib.Path(FLAGS.workdir), evaluation=FLAGS.evaluation, row=FLAGS.row, reason=FLAGS.reason)
  path = recording.write(record, further="" if FLAGS.row else FLAGS.evaluation)
  print(f"{records.measured(record)} is in {path}; warpjax report prints it in the tables.")


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  flags.DEFINE_string("workdir", None, "A finished run, or a finished sweep over seeds.", required=True)
  flags.DEFINE_string("evaluation", "", "Takes evaluation_NAME.json: one more number of the run's record, or --row's.")
  flags.DEFINE_string("row", "", "The row of the same recipe whose number the evaluation gives.")
  flags.DEFINE_string("reason", "", "Why the number is short of its paper's.")
  cli.run(main)
