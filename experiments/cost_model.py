"""What a meta-step would cost on many devices: the compute of a task measured here, the rest by a model.

  python -m experiments.cost_model --config=configs/omniglot.py:maml --tasks=1000 --devices=8,64,512

The seconds of a meta-step over D devices are ceil(tasks / D) * seconds_per_task + all_reduce(D), with a ring's
all_reduce(D) = 2 (D - 1) / D * bytes / bandwidth + 2 (D - 1) * latency, bytes being those of the meta-gradient.
"""

from __future__ import annotations

import json
import math
import time

import jax
from absl import flags

from warpjax.diagnostics import timing
from warpjax.runner import cli, loop
from warpjax.runner import experiment as experiments
from warpjax.runner.cli import FLAGS
from warpjax.training import parallel
from warpjax.types import PyTree


def all_reduce_seconds(num_bytes: float, devices: int, bandwidth: float, latency: float) -> float:
  """A ring all-reduce: each device sends 2 (D - 1) / D of the bytes, in 2 (D - 1) messages.

  Args:
    num_bytes: What each device holds.
    devices: D.
    bandwidth: Bytes a second that a device sends.
    latency: Seconds of a message.

  Returns:
    Seconds.

  Example:
    >>> all_reduce_seconds(1e9, 2, bandwidth=1e9, latency=0.0)
    1.0
    >>> all_reduce_seconds(1e9, 1, bandwidth=1e9, latency=1.0)
    0.0
  """
  return 2 * (devices - 1) / devices * num_bytes / bandwidth + 2 * (devices - 1) * latency


def step_seconds(tasks: int, devices: int, seconds_per_task: float, reduce_seconds: float) -> dict[str, float]:
  """A meta-step over D devices, which do their tasks in sequence and then wait for each other.

  Example:
    >>> step_seconds(1000, 64, 0.1, 0.4)
    {'compute': 1.6, 'all_reduce': 0.4, 'seconds': 2.0, 'efficiency': 0.78...}
  """
  compute = math.ceil(tasks / devices) * seconds_per_task
  total = compute + reduce_seconds
  ideal = tasks * seconds_per_task / devices
  return {"compute": compute, "all_reduce": reduce_seconds, "seconds": total, "efficiency": ideal / total}


def meta_gradient_bytes(meta_params: PyTree) -> int:
  """What the devices average in a meta-step: one number for each meta-parameter."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(meta_params))


def measure(experiment: experiments.Experiment, *, repeats: int = 3) -> float:
  """Seconds that a task of a meta-step takes on this device.

  On a CPU the device is a core, and seconds are those that cores were busy, so that other work does not count.

  Args:
    experiment: Its `tasks_per_step` tasks are the batch that is timed.
    repeats: Dispatches, of which the fastest counts; one more goes before them, to compile.
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
  experiment = experiments.build(cli.config(), **cli.places())
  num_bytes = meta_gradient_bytes(jax.eval_shape(lambda: loop.start(experiment)).meta_params)
  seconds = FLAGS.seconds_per_task or measure(experiment)
  device = jax.devices()[0].device_kind
  rows = []
  for devices in counts:
    reduce = all_reduce_seconds(num_bytes, devices, 1e9 * FLAGS.gigabytes_per_second, 1e-6 * FLAGS.microseconds)
    rows.append({"devices": devices, **step_seconds(FLAGS.tasks, devices, seconds, reduce)})
  print(json.dumps({"device": device, "seconds_per_task": seconds, "bytes": num_bytes, "rows": rows}, indent=2))


if __name__ == "__main__":
  cli.define(config=True)
  flags.DEFINE_integer("tasks", 1000, "Tasks in a meta-step.", lower_bound=1)
  flags.DEFINE_list("devices", ["1", "8", "64", "512"], "Numbers of devices.")
  flags.DEFINE_float("seconds_per_task", None, "The compute of a task; default: measured here.", lower_bound=1e-9)
  flags.DEFINE_float("gigabytes_per_second", 12.5, "What a device sends in a second; 12.5 is 100 Gbit/s.")
  flags.DEFINE_float("microseconds", 20.0, "The latency of a message.")
  cli.run(main)
