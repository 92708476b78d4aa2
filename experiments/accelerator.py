"""All measurements that need a GPU, in one command, for a machine with a GPU, no network and little time.

  python -m experiments.accelerator --minutes=8 --workdir=runs/accelerator --data_dir=DIR [--wheels=DIR] [--export=DIR]
  python -m experiments.accelerator --small --minutes=5 --workdir=runs/accelerator   # tiny, to test it on any machine
  python -m experiments.accelerator --record=DIR                 # afterwards, in a checkout: the results become records

Parts in order: devices and versions; the tests marked `gpu`; both lowerings of convolutions; a meta-step against JAX by
hand and PyTorch, in float32, TF32 and bfloat16; the benchmark's accuracy and memory; then `omniglot.py:maml` and
`:meta_sgd_20way` at the papers' own budgets. Each part is a process with a time limit, a share of the minutes that
remain, and its result is on disk at once, so that a part that fails, hangs or is cut off costs no other. Training saves
checkpoints, and the same command resumes from them.

DIR of --data_dir holds Omniglot, for example the one file that `warpjax prepare packed_omniglot` makes.
"""

from __future__ import annotations

import datetime
import pathlib
import signal
import sys
from typing import Any

from absl import flags

from experiments.on_device import plan, programs, records, schedule
from warpjax.datasets import omniglot
from warpjax.runner import cli, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import schema
from warpjax.runner.machine import provenance


def run_all(
  directory: pathlib.Path,
  *,
  minutes: float,
  wheels: str | None = None,
  small: bool = False,
  data_dir: str | None = None,
  only: list[str] | None = None,
  export: str | None = None,
) -> list[dict[str, Any]]:
  """Runs the parts, or those that `only` names; see `schedule.run`.

  Raises:
    ValueError: For an unknown part, a folder without wheels or without Omniglot, or a workdir of other sizes.
  """
  parts = plan.parts(directory, wheels=wheels, small=small, data_dir=data_dir)
  chosen = [schema.choose("--only", name, parts) for name in only or parts]
  if not small and {part.name for part in chosen} & set(programs.TRAINED) and not omniglot.is_in(data_dir):
    raise ValueError(
      "--data_dir must hold Omniglot, such as the file that `warpjax prepare packed_omniglot` makes; "
      f"got {data_dir}. --only=devices,tests,... leaves training out."
    )
  before = workdir.read_json(directory / schedule.SUMMARY)
  if before and before["small"] != small:
    what = "with --small" if before["small"] else "without --small"
    raise ValueError(f"{directory} has results {what}, which are not mixed; use another --workdir.")
  started = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
  facts = {"started": started, "minutes": minutes, "small": small, "commit": provenance.commit()}
  rows = schedule.run(chosen, directory, 60 * minutes, facts=facts, export=pathlib.Path(export) if export else None)
  print(
    f"Results: {directory / schedule.SUMMARY}. Records: python -m experiments.accelerator --record={directory}",
    flush=True,
  )
  return rows


def main() -> int:
  """Runs the command; the exit status is 1 if a part failed."""
  if FLAGS.record:
    for line in records.write(pathlib.Path(FLAGS.record)):
      print(line)
    return 0
  if not FLAGS.workdir:
    raise ValueError("--workdir is missing; it is the folder of the results.")
  directory = pathlib.Path(FLAGS.workdir).absolute()
  data_dir = str(pathlib.Path(FLAGS.data_dir).absolute()) if FLAGS.data_dir else None
  if FLAGS.part:
    call = programs.Call(FLAGS.part, directory, FLAGS.seconds, FLAGS.small, data_dir)
    schema.choose("--part", FLAGS.part, programs.PROGRAMS)(call)
    return 0
  signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the part under way ends too
  rows = run_all(
    directory,
    minutes=FLAGS.minutes,
    wheels=FLAGS.wheels,
    small=FLAGS.small,
    data_dir=data_dir,
    only=FLAGS.only,
    export=FLAGS.export,
  )
  return int(any(row["status"] == "failed" for row in rows))


if __name__ == "__main__":
  cli.define(places=False)
  flags.DEFINE_string("workdir", None, "Where everything goes.")
  flags.DEFINE_float("minutes", 8.0, "For all parts together.", lower_bound=0.0)
  flags.DEFINE_string("data_dir", None, "Folder with Omniglot; default: TFDS_DATA_DIR.")
  flags.DEFINE_string("wheels", None, "Folder of wheels to install, without a network, into WORKDIR/site alone.")
  flags.DEFINE_string("export", None, "Folder for two files: all results so far, and the training runs as a tar file.")
  flags.DEFINE_list("only", [], "The parts to run; default: all of them.")
  flags.DEFINE_bool("small", False, "Tiny sizes and made data, to test the command.")
  flags.DEFINE_string("record", None, "Turns the results in this folder, a workdir or an export, into records.")
  flags.DEFINE_string("part", None, "Runs this part in this process, as the command itself does.")
  flags.DEFINE_float("seconds", 3600.0, "The time limit of --part.")
  cli.run(main)
