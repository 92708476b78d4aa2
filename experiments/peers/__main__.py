"""Times warpjax against its peers, in turns, on a machine that should do nothing else.

  pip install -e ".[peers]"
  python -m experiments.peers --workdir=runs/peers --rounds=15
  python -m experiments.peers --workdir=runs/peers_sine --cases=sine --rounds=30

Writes `peers.json` and `peers.png`, and prints a table.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from experiments import options, schema, workdir
from experiments.options import FLAGS
from experiments.peers import cases, group, report


def compare(directory: pathlib.Path, names: Sequence[str], rounds: int, *, small: bool = False) -> list[dict[str, Any]]:
  """Times the cases, and writes `peers.json` after each of them.

  Args:
    directory: Where the results go; made where there is none.
    names: Of `cases.CASES`.
    rounds: Meta-steps of each peer that are timed.
    small: Whether to shrink every case to seconds, which tests the program and measures nothing.

  Returns:
    The summaries, one a case.

  Raises:
    ValueError: for a case that there is not, or `rounds` below 1.
  """
  schema.at_least_one("peers", rounds=rounds)
  chosen = [schema.choose("--cases", name, cases.CASES) for name in names]
  directory.mkdir(parents=True, exist_ok=True)
  machine, results = report.machine(), []
  for case in chosen:
    case = cases.smaller(case) if small else case
    results.append(report.summary(case, group.time_case(case, rounds)))
    workdir.write_json(directory / "peers.json", {"machine": machine, "rounds": rounds, "cases": results})
  report.draw(results, directory / "peers.png")
  return results


def main(argv: Sequence[str]) -> int:
  """Exits with 0, or 1 on an error."""
  del argv
  with options.errors_in_one_line():
    results = compare(pathlib.Path(FLAGS.workdir), FLAGS.cases, FLAGS.rounds, small=FLAGS.small)
  print(report.table(results))
  return 0


if __name__ == "__main__":
  options.define(places=False)
  flags.DEFINE_string("workdir", None, "Where the results go.", required=True)
  flags.DEFINE_list("cases", list(cases.CASES), f"Which of {', '.join(cases.CASES)}.")
  flags.DEFINE_integer("rounds", 15, "Meta-steps of each peer that are timed.", lower_bound=1)
  flags.DEFINE_bool("small", False, "Shrink every case to seconds: a test of the program.")
  sys.exit(app.run(main, flags_parser=options.parse))
