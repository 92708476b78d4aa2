"""The share of a meta-step's time that its data take: drawing tasks, against drawing them and learning from them.

  python -m experiments.throughput --config=configs/mini_imagenet.py:maml_5shot --data_dir=FOLDER

Prints a JSON object: seconds of each, tasks a second, and the share of the data.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
from absl import flags

from warpjax import training
from warpjax.diagnostics import timing
from warpjax.runner import cli, experiment, loop
from warpjax.runner.cli import FLAGS
from warpjax.training import parallel
from warpjax.training.task_batch import as_argument


def measure(config: Mapping[str, Any], *, repeats: int = 5, **places: Any) -> dict[str, Any]:
  """Times the two after a first call of each; medians of so many calls.

  Returns:
    `data_seconds` and `step_seconds` of one meta-step, `data_share`, `tasks_per_second`, `device`, `ready_seconds`.
  """
  started = time.monotonic()
  built = experiment.build(config, **places)
  ready, num_tasks = time.monotonic() - started, built.run.tasks_per_step
  draw = jax.jit(partial(training.sample_tasks, num_tasks=num_tasks))
  step, state = loop.make_dispatch(built, 1, parallel.device_mesh(1)), loop.start(built)
  sampler, key = as_argument(built.data.train), jax.random.key(0)
  data_seconds = statistics.median(timing.seconds_of(lambda: draw(sampler, key), repeats))
  step_seconds = statistics.median(timing.seconds_of(lambda: step(state, sampler), repeats))
  return {
    "ready_seconds": round(ready, 3),
    "data_seconds": data_seconds,
    "step_seconds": step_seconds,
    "data_share": data_seconds / step_seconds,
    "tasks_per_second": num_tasks / step_seconds,
    "device": jax.devices()[0].device_kind,
  }


def main() -> None:
  """Runs the command."""
  print(json.dumps(measure(cli.config(), repeats=FLAGS.repeats, **cli.places()), indent=2))


if __name__ == "__main__":
  cli.define(config=True)
  flags.DEFINE_integer("repeats", 5, "Timed calls of each.", lower_bound=1)
  cli.run(main)
