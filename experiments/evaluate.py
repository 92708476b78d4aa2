"""Evaluates a workdir again: more test tasks, or after an interruption.

  python -m experiments.evaluate --workdir=runs/maml --num_tasks=4000

Writes `evaluation.json` in the form of `result.json`.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from experiments import experiment as experiments
from experiments import loop, measure, options, protocol, workdir
from experiments.options import FLAGS


def evaluate(
  directory: str | pathlib.Path,
  num_tasks: int | None = None,
  *,
  data_dir: str | None = None,
  cache_dir: str | None = None,
) -> dict[str, Any]:
  """Evaluates the checkpoints of a workdir that its result is of, and writes `evaluation.json`.

  Args:
    directory: The workdir.
    num_tasks: Test tasks; None for the config's.
    data_dir: Where prepared data are.
    cache_dir: Where arrays made from them go.

  Returns:
    What was written.

  Raises:
    ValueError: If the directory is no workdir, or holds no checkpoint.
  """
  path = pathlib.Path(directory)
  config = workdir.read_json(path / workdir.CONFIG)
  if config is None:
    raise ValueError(f"--workdir must hold a {workdir.CONFIG}; {path} does not.")
  if "seed" not in config:
    raise ValueError(f"--workdir must be one run; {path} holds one for each seed, {path}/seed_N.")
  experiment = experiments.build(config, data_dir=data_dir, cache_dir=cache_dir)
  state, *members = loop.restore_all(experiment, path)
  result, _ = measure.measure(experiment, state, members=members, num_tasks=num_tasks)
  workdir.write_json(path / workdir.EVALUATION, result)
  return workdir.read_json(path / workdir.EVALUATION)


def main(argv: Sequence[str]) -> int:
  """Exits with 0, or 1 on an error."""
  del argv
  with options.errors_in_one_line():
    result = evaluate(FLAGS.workdir, FLAGS.num_tasks, **options.places())
    print(protocol.text(result), file=sys.stderr, flush=True)
    print(json.dumps(result, indent=2))
  return 0


if __name__ == "__main__":
  options.define()
  flags.DEFINE_string("workdir", None, "A workdir that experiments.train made.", required=True)
  flags.DEFINE_integer("num_tasks", None, "Test tasks; default: the config's.", lower_bound=1)
  sys.exit(app.run(main, flags_parser=options.parse))
