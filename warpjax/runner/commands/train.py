"""Meta-trains and evaluates one config.

  warpjax train --config=sinusoid:maml --workdir=runs/maml --config.inner.learning_rate=0.02

The same command resumes a stopped run. A finished workdir prints its result, or trains on with a larger
`--config.num_meta_steps`. `--init_from=WORKDIR` starts from the meta-parameters of another run. `--seeds=0,1,2` runs
each seed in a sub-directory and combines the results. `--sweep=KEY=VALUE,VALUE` runs a grid. `--settings` prints every
setting of the row, and `--config.inner.num_steps=5` changes one. `--list` prints every experiment and method with its
paper and numbers.
"""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Mapping
from functools import partial
from typing import Any

from absl import flags

from warpjax.runner import cli, grid, loop, origins, run, workdir
from warpjax.runner.cli import FLAGS
from warpjax.runner.config import listing, settings
from warpjax.runner.machine import cores, hosts, lowering, tuning
from warpjax.runner.reporting import protocol
from warpjax.runner.reporting.writers import WRITERS


def main() -> None:
  """Trains, evaluates and prints the result."""
  config, seeds = cli.config(), cli.integers("seeds", FLAGS.seeds)
  if FLAGS.settings:
    print(settings.text(config))
    return
  if FLAGS.workdir is None:
    raise ValueError("--workdir is missing; it is the folder of the run.")
  grid.points(FLAGS.sweep)
  arguments: dict[str, Any] = {"on_nonfinite": FLAGS.on_nonfinite, **cli.places()}
  init = origins.from_flags(FLAGS.init_from, FLAGS.init_step)
  if (FLAGS.num_processes or 1) == 1 and FLAGS.coordinator is None:
    config = cores.for_run(config, FLAGS.workdir, FLAGS.cpu_devices, data_dir=FLAGS.data_dir, cache_dir=FLAGS.cache_dir)
  hosts.connect(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
  cli.keep_compiled()
  if FLAGS.tune:
    config = tuning.for_run(config, FLAGS.workdir, **cli.places())
  check = partial(run.check, config, FLAGS.workdir, **arguments)
  config = lowering.for_run(config, FLAGS.workdir, check=check, cache_dir=FLAGS.cache_dir)
  result: Mapping[str, Any]
  if FLAGS.sweep:
    result = grid.train(config, FLAGS.workdir, FLAGS.sweep, seeds, init=init, writers=FLAGS.writer, **arguments)
  elif seeds:
    result = run.sweep(config, FLAGS.workdir, seeds, init=init, writers=FLAGS.writer, **arguments)
  else:
    result = run.train_and_evaluate(config, FLAGS.workdir, init=init, writers=FLAGS.writer, **arguments)
  text, picture = (grid.table(result), grid.PICTURE) if FLAGS.sweep else (protocol.text(result), run.PICTURE)
  text = f"{text}\nIn {FLAGS.workdir}: {workdir.RESULT}, {picture}"
  hosts.say(json.dumps(result, indent=2) if FLAGS.json else text)


def command() -> None:
  """Defines the flags and runs."""
  cli.define(config=True, processes=True)
  flags.DEFINE_string("workdir", None, "The folder of the run.")
  flags.DEFINE_multi_string("sweep", [], "A grid: KEY=VALUE,VALUE, such as inner.learning_rate=0.01,0.02; repeatable.")
  flags.DEFINE_multi_enum("writer", [], list(WRITERS), "Receives metrics besides metrics.jsonl; repeatable.")
  flags.DEFINE_bool("settings", False, "Print every setting that the row can take, and exit.")
  flags.DEFINE_bool("json", False, "Print the result as JSON instead of text.")
  flags.DEFINE_list("seeds", [], "Training seeds, each run in WORKDIR/seed_N, instead of config.seed.")
  flags.DEFINE_enum(
    "on_nonfinite", "stop", typing.get_args(loop.OnNonfinite), "Stop at an update that is not finite, or skip it."
  )
  flags.DEFINE_string("init_from", None, "Start from the meta-parameters of this workdir, which the result records.")
  flags.DEFINE_integer("init_step", None, "The checkpoint of --init_from; default: that of its result, or the newest.")
  flags.DEFINE_bool(
    "tune", False, "Use the task_chunk and network.lowering that are fastest on this machine; see warpjax tune."
  )
  flags.DEFINE_bool("list", False, "Print every experiment and method, with its paper and numbers, and exit.")
  if {"--list", "--list=true"} & set(sys.argv[1:]):  # before the flags that are required
    print(listing.text())
    sys.exit()
  cli.run(main)
