"""The cost of a meta-step on many devices, by a model: only the compute of a task is measured.

  python -m experiments.cost_model --config=configs/omniglot.py:maml --tasks=1000 --devices=8,64,512

The seconds of a meta-step over D devices are ceil(tasks / D) * seconds_per_task + all_reduce(D), with a ring's
all_reduce(D) = 2 (D - 1) / D * bytes / bandwidth + 2 (D - 1) * latency, bytes being those of the meta-gradient.
"""

from __future__ import annotations

import json
import math
import time
from typing import NamedTuple

import jax
from absl import flags

from warpjax.diagnostics import timing
from warpjax.runner import cli, loop
from warpjax.runner.cli import FLAGS
from warpjax.runner.experiment import Experiment, build
from warpjax.training import parallel


class Link(NamedTuple):
  """The link of a device: bytes a second, and the latency of a message in seconds."""

  bandwidth: float
  latency: float


def step_seconds(tasks: int, devices: int, seconds_per_task: float, num_bytes: int, link: Link) -> dict[str, float]:
  """A meta-step over some devices, which do their tasks in sequence and then average `num_bytes` in a ring."""
  messages = 2 * (devices - 1)
  all_reduce = messages / devices * num_bytes / link.bandwidth + messages * link.latency
  compute = math.ceil(tasks / devices) * seconds_per_task
  seconds, ideal = compute + all_reduce, tasks * seconds_per_task / devices
  return {"compute": compute, "all_reduce": all_reduce, "seconds": seconds, "efficiency": ideal / seconds}


def measure(experiment: Experiment, *, repeats: int = 3) -> float:
  """Seconds of one task in a meta-step on this device, the fastest of the repeats.

  On a CPU the device is a core, and seconds are those that cores were busy, so that other work does not count.
  """
  dispatch = loop.make_dispatch(experiment, 1, parallel.device_mesh(1))
  clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
  state, sampler = loop.start(experiment), experiment.data.train
  return min(timing.seconds_of(lambda: dispatch(state, sampler), repeats, clock=clock)) / experiment.run.tasks_per_step


def main() -> None:
  """Prints a row for each number of devices."""
  counts = cli.integers("devices", FLAGS.devices)
  if min(counts) < 1:
    raise ValueError(f"--devices must be at least 1 each; got {','.join(FLAGS.devices)}.")
  experiment = build(cli.config(), **cli.places())
  meta_params = jax.eval_shape(lambda: loop.start(experiment)).meta_params
  num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(meta_params))
  seconds = FLAGS.seconds_per_task or measure(experiment)
  link, device = Link(1e9 * FLAGS.gigabytes_per_second, 1e-6 * FLAGS.microseconds), jax.devices()[0].device_kind
  rows = [{"devices": n, **step_seconds(FLAGS.tasks, n, seconds, num_bytes, link)} for n in counts]
  print(json.dumps({"device": device, "seconds_per_task": seconds, "bytes": num_bytes, "rows": rows}, indent=2))


if __name__ == "__main__":
  cli.define(config=True)
  flags.DEFINE_integer("tasks", 1000, "Tasks in a meta-step.", lower_bound=1)
  flags.DEFINE_list("devices", ["1", "8", "64", "512"], "Numbers of devices.")
  flags.DEFINE_float("seconds_per_task", None, "The compute of a task; default: measured here.", lower_bound=1e-9)
  flags.DEFINE_float("gigabytes_per_second", 12.5, "What a device sends in a second; 12.5 is 100 Gbit/s.")
  flags.DEFINE_float("microseconds", 20.0, "The latency of a message.")
  cli.run(main)
