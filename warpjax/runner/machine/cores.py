"""Makes a device of each core of a CPU if one measurement, in separate processes, shows that to be faster.

`warpjax train` does so for a new run of a network with convolutions, before JAX has started. The run's config.json has
the choice as `cpu_devices`, and the user's cache keeps it until the config or the machine changes. With
`--cpu_devices=1`, or another number, nothing is measured.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from warpjax import processor
from warpjax.runner import workdir
from warpjax.runner.machine import lowering, remembered, tuning

STORE = "devices"
SECONDS = 240.0  # a limit for both measurements; they usually take some seconds
COMMAND = (sys.executable, "-m", "warpjax.runner.machine.cores")
BAD_CONFIG = 2  # the status of the command for a config that cannot be built, or data that are missing
ROUNDS = 5
LEAST_GAIN = 1.03  # a difference that is smaller may be the noise of the machine


def for_run(
  config: Mapping[str, Any],
  directory: str | os.PathLike[str],
  asked: int | None,
  *,
  cores: int | None = None,
  command: Sequence[str] = COMMAND,
  seconds: float = SECONDS,
  data_dir: str | None = None,
  cache_dir: str | None = None,
) -> dict[str, Any]:
  """Chooses how many devices a CPU is made into, tells JAX, and adds the number to the config of the run.

  It must be called before JAX has started its devices. Other backends ignore the number.

  Args:
    config: Nested dicts, as `load_config` returns them.
    directory: The workdir. A run that was begun there keeps its number.
    asked: The number that the user asks for; None for the workdir's number, or the faster one.
    cores: The cores of this process; None to look.
    command: Measures: takes a config, places and a number of devices as JSON, and prints the seconds of a meta-step.
    seconds: Time limit of the measurement.
    data_dir: Folder of the data.
    cache_dir: Folder for measurements; None for the user's cache.

  Returns:
    The config, with `cpu_devices` if there is more than one.
  """
  begun = workdir.begun_config(directory)
  count = asked or (begun or config).get("cpu_devices") or 1
  if not asked and begun is None and "cpu_devices" not in config:
    places = {"data_dir": data_dir, "cache_dir": cache_dir}
    count = _chosen(config, cores or processor.cores(), command, seconds, places)
  if count > 1:
    jax.config.update("jax_num_cpu_devices", count)
  others = {key: value for key, value in config.items() if key != "cpu_devices"}
  return {**others, "cpu_devices": count} if count > 1 else others


def _chosen(config: Mapping[str, Any], cores: int, command: Sequence[str], seconds: float, places: Any) -> int:
  tasks = config.get("tasks_per_step")
  if cores == 1 or not isinstance(tasks, int) or tasks % cores or not lowering.has_convolutions(config):
    return 1
  entry = remembered.entry(f"{config['experiment']}:{config['method']}", cores, workdir.as_json(tuning.work(config)))
  known = remembered.recall(STORE, entry, places.get("cache_dir"))
  if known in (1, cores):
    return known
  _say(f"Devices of this CPU: measuring 1 and {cores} once, for at most {seconds:.0f} s.")
  try:
    times = [_measured(config, count, command, seconds / 2, places) for count in (1, cores)]
  except (OSError, subprocess.SubprocessError, ValueError) as error:
    if getattr(error, "returncode", None) == BAD_CONFIG:  # the run itself will say what is wrong
      return 1
    _say(f"Devices of this CPU: 1, since measuring failed ({type(error).__name__}).")
    return 1
  if None in times:  # there is another backend, whose devices are not made
    remembered.keep(STORE, entry, 1, places.get("cache_dir"))
    return 1
  count = cores if times[0] > LEAST_GAIN * times[1] else 1
  trouble = remembered.keep(STORE, entry, count, places.get("cache_dir"))
  note = f" It is not remembered: {trouble}." if trouble else ""
  shown = f"1 takes {1e3 * times[0]:.3g} ms for a meta-step, {cores} take {1e3 * times[1]:.3g} ms"
  _say(f"Devices of this CPU: {count} ({shown}).{note} The other: --cpu_devices={1 if count > 1 else cores}.")
  return count


def _say(message: str) -> None:
  print(message, file=sys.stderr, flush=True)  # `hosts.say` would start JAX


def _measured(config: Mapping[str, Any], count: int, command: Sequence[str], seconds: float, places: Any) -> Any:
  """Seconds of a meta-step on so many devices, from a process of its own; None where the backend is no CPU."""
  todo = json.dumps({"config": config, "places": places, "devices": count})
  root = pathlib.Path(__file__).parents[3]
  done = subprocess.run(command, cwd=root, input=todo, capture_output=True, text=True, timeout=seconds, check=True)
  return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
  """Reads what to measure as JSON from standard input, and prints the seconds of a meta-step, or null."""
  from warpjax.runner.experiment import build  # after the number of devices is set, since networks may start JAX

  todo = json.load(sys.stdin)
  jax.config.update("jax_num_cpu_devices", todo["devices"])
  if jax.default_backend() != "cpu":
    print("null")
    return
  try:
    built = build(todo["config"], **todo["places"])
  except (ValueError, FileNotFoundError):
    sys.exit(BAD_CONFIG)
  step = tuning.ready(built)
  print(json.dumps(statistics.median(step() for _ in range(ROUNDS))))


if __name__ == "__main__":
  main()
