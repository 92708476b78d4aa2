"""The largest number of inner steps that fits into memory, for each way to differentiate and each memory policy.

  warpjax fits --config=configs/omniglot.py:maml --gib=4 --config.tasks_per_step=32
  warpjax fits --config=configs/omniglot.py:maml --gib=4 --num_steps=1024   # which of them take so many steps?

Programs are compiled and not run, so that the budget may exceed the memory of this machine. The last row is the
config's own estimator. With --num_steps that row is missing, and memory is predicted from programs of at most 64 steps.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from warpjax.runner import cli, fitting
from warpjax.runner.cli import FLAGS
from warpjax.runner.experiment import build
from warpjax.runner.reporting import progress


def main() -> None:
  """Runs the command."""
  cli.keep_compiled()
  config = cli.config()
  experiment = build(config, **cli.places())
  steps, gib = FLAGS.num_steps, FLAGS.gib
  with progress.waiting(f"Compiling programs of {experiment.run.name} with different numbers of inner steps"):
    if steps is None:
      asked = f"largest number of inner steps within {gib:g} GiB, at most {FLAGS.at_most}:"
      found: dict[str, Any] = fitting.table(config, experiment, gib, FLAGS.at_most)
    else:
      asked = f"GiB of {steps} inner steps, predicted, and whether they fit into {gib:g} GiB:"
      sizes = fitting.predicted(experiment, steps)
      found = {name: f"{size:<9.4g} {'yes' if size <= gib else 'no'}" for name, size in sizes.items()}
  print(asked, *(f"  {name:<36} {value}" for name, value in found.items()), sep="\n")


def command() -> None:
  """Defines the flags and runs."""
  cli.define(config=True)
  flags.DEFINE_float("gib", None, "Memory of one device, in 2^30 bytes.", required=True, lower_bound=1e-6)
  flags.DEFINE_integer("at_most", 4096, "Largest number of inner steps to try.", lower_bound=1)
  flags.DEFINE_integer("num_steps", None, "Inner steps: which policies take so many?", lower_bound=1)
  cli.run(main)
