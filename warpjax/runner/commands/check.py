"""Checks the learner of a config: its meta-gradient, its tasks, and mixing between its query examples.

  warpjax check --config=configs/sinusoid.py:maml --config.inner.num_steps=2

Prints a table, and exits with 1 if a check failed.
"""

from __future__ import annotations

import jax
from absl import flags

from warpjax import diagnostics
from warpjax.runner import cli, loop
from warpjax.runner.cli import FLAGS
from warpjax.runner.experiment import Experiment, build
from warpjax.runner.reporting import progress

# Checks of the meta-gradient used in training.
ESTIMATOR = ("order", "zero leaves")


def check(experiment: Experiment, *, num_tasks: int = 64) -> diagnostics.Report:
  """`diagnostics.check_learner` on the learner of an experiment, at its initial parameters.

  Args:
    experiment: A built config.
    num_tasks: Tasks of each split that are compared for leaks.

  Returns:
    The report; a check that does not apply is skipped, with the reason.
  """
  report = diagnostics.check_learner(
    experiment.inner,
    loop.start(experiment).meta_params,
    experiment.data.train,
    jax.random.key(experiment.run.seed),
    meta_grad=experiment.outer_step.meta_grad,
    held_out=experiment.data.test,
    num_tasks=num_tasks,
  )
  name, skipped = experiment.settings["meta_gradient"]["name"], {}
  if experiment.outer_step.meta_grad is None:
    skipped = dict.fromkeys(ESTIMATOR, f"{name} takes a step that is not along the meta-gradient of one task")
  if experiment.spec.metric == "return":
    skipped["finite differences"] = "the loss of sampled episodes is a surrogate, whose differences are no gradient"
  checks = (diagnostics.Check(c.name, "skipped", skipped[c.name]) if c.name in skipped else c for c in report.checks)
  return diagnostics.Report(tuple(checks))


def main() -> int:
  """Exits with 0, or 1 on an error or a failed check."""
  cli.keep_compiled()
  experiment = build(cli.config(), **cli.places())
  with progress.waiting(f"Checking {experiment.run.name}"):
    report = check(experiment, num_tasks=FLAGS.num_tasks)
  print(report)
  return int(any(each.status == "failed" for each in report.checks))


def command() -> None:
  """Defines the flags and runs."""
  cli.define(config=True)
  flags.DEFINE_integer("num_tasks", 64, "Tasks of each split that are compared for leaks.", lower_bound=1)
  cli.run(main)
