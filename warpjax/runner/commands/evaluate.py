"""Evaluates a workdir again, on more test tasks or with other settings of the test.

  warpjax evaluate --workdir=runs/maml --num_tasks=4000
  warpjax evaluate --workdir=runs/maml --set=eval.num_steps=5 --set=data.shots=20 --name=20_shots

Writes `evaluation.json`, or `evaluation_NAME.json`, in the form of `result.json`.
"""

from __future__ import annotations

import json
import sys

from absl import flags

from warpjax.runner import cli, evaluations
from warpjax.runner.cli import FLAGS
from warpjax.runner.reporting import protocol


def main() -> None:
  """Runs the command."""
  cli.keep_compiled()
  changed = evaluations.parsed(FLAGS.workdir, FLAGS.set)
  result = evaluations.evaluate(FLAGS.workdir, FLAGS.num_tasks, changed=changed, name=FLAGS.name, **cli.places())
  print(protocol.text(result), file=sys.stderr, flush=True)
  print(json.dumps(result, indent=2))


def command() -> None:
  """Defines the flags and runs."""
  cli.define()
  flags.DEFINE_string("workdir", None, "A workdir of warpjax train.", required=True)
  flags.DEFINE_integer("num_tasks", None, "Test tasks; default: the config's.", lower_bound=1)
  flags.DEFINE_multi_string("set", [], "A setting of the test, such as eval.num_steps=5 or data.shots=20; repeatable.")
  flags.DEFINE_string("name", "", "Writes evaluation_NAME.json, to keep several evaluations.")
  cli.run(main)
