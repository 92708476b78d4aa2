"""Chooses how convolutions are lowered on a device that `conv.AUTO_LOWERING` does not list, by measuring once.

  python -m experiments.lowering

`experiments.train` runs this in a process of its own at the first new run on such a device, writes the choice into the
run's config.json as `network.lowering`, and remembers it in the user's cache until the device or a version changes.
`--config.network.lowering=lax`, `patches` or `auto` (as the table says) takes the place of the measurement.
"""

from __future__ import annotations

import inspect
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import app

from experiments import hosts, learners, options, remembered, rows, schema, workdir
from warpjax.networks import conv, conv_timing

STORE = "lowering"
SECONDS = 180.0  # a limit; both take seconds where they work
COMMAND = (sys.executable, "-m", "experiments.lowering")
CHOICES = ("patches", "lax")


def for_run(
  config: dict[str, Any],
  directory: str | os.PathLike[str],
  *,
  listed: Mapping[str, str] = conv.AUTO_LOWERING,
  command: Sequence[str] = COMMAND,
  seconds: float = SECONDS,
  cache_dir: str | None = None,
) -> dict[str, Any]:
  """The config of a run with its lowering: as given, as its workdir was begun with, or as measured on this device.

  Args:
    config: Nested dicts, as `experiments.experiment.build` takes them.
    directory: The workdir.
    listed: Backends whose lowering is known; nothing is measured on them.
    command: Measures, and prints its times as JSON.
    seconds: After how long the measurement is given up.
    cache_dir: Where the choice is remembered; None for the user's cache.

  Returns:
    The config, with `network.lowering` where there is something to choose.
  """
  if not is_open(config) or jax.default_backend() in listed:
    return config
  path = pathlib.Path(directory)
  begun = hosts.from_first(lambda: workdir.read_json(path / workdir.CONFIG) if workdir.begun(path) else None)
  if begun is not None:
    chosen = (begun.get("network") or {}).get("lowering")
  else:
    chosen = hosts.from_first(lambda: _choose(command, seconds, cache_dir))
  return rows.lay_over(config, {"network": {"lowering": chosen}}) if chosen else config


def is_open(config: Mapping[str, Any]) -> bool:
  """Whether a config has convolutions, and does not say how they are lowered."""
  network = schema.given(config).get("network", {})
  make = learners.NETWORKS.get(str(network.get("name"))) if isinstance(network, Mapping) else None
  return make is not None and "lowering" in inspect.signature(make).parameters and "lowering" not in network


def fastest(times: Mapping[str, Mapping[str, float]]) -> str:
  """The lowering whose gradient, and gradient through an inner step, take less time together."""
  return min(CHOICES, key=lambda lowering: times[lowering]["gradient"] + times[lowering]["second_order"])


def _choose(command: Sequence[str], seconds: float, cache_dir: str | None) -> str:
  """Remembered or measured; never an error, as `lax` is always right."""
  device = jax.devices()[0].device_kind
  entry = remembered.key(device)
  chosen = remembered.recall(STORE, entry, cache_dir)
  if chosen in CHOICES:
    hosts.say(f"Convolutions on {device}: {chosen}, as measured before. {_override(chosen)}", error=True)
    return chosen
  hosts.say(f"Convolutions on {device}: measuring both lowerings once, for at most {seconds:.0f} s.", error=True)
  try:
    times = _measure(command, seconds)
    chosen = fastest(times)
  except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, IndexError) as error:
    hosts.say(f"Convolutions on {device}: lax, since measuring failed ({_why(error)}). {_override('lax')}", error=True)
    return "lax"
  shown = ", ".join(f"{name} {1e3 * times[name]['second_order']:.3g} ms" for name in CHOICES)
  trouble = remembered.keep(STORE, entry, chosen, cache_dir)
  note = f"It is not remembered: {trouble}. " if trouble else ""
  hosts.say(f"Convolutions on {device}: {chosen} ({shown} a meta-gradient). {note}{_override(chosen)}", error=True)
  return chosen


def _measure(command: Sequence[str], seconds: float) -> Any:
  """The times, from a process of its own: what crashes or hangs there leaves the run alone."""
  root = pathlib.Path(__file__).parents[1]
  # This process may hold most of the device's memory already.
  environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  if platforms := getattr(jax.config, "jax_platforms", None):
    environment["JAX_PLATFORMS"] = platforms
  done = subprocess.run(
    command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
  )
  if done.returncode:
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    raise ValueError(f"exit status {done.returncode}: {last[0][:200]}")
  return json.loads(done.stdout.strip().splitlines()[-1])


def _why(error: Exception) -> str:
  if isinstance(error, subprocess.TimeoutExpired):
    return f"not done after {error.timeout:.0f} s"
  return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def _override(chosen: str) -> str:
  other = CHOICES[1 - CHOICES.index(chosen)]
  return f"The other: --config.network.lowering={other}."


def main(argv: Sequence[str]) -> int:
  """Prints the seconds of each lowering as JSON."""
  del argv
  with options.errors_in_one_line():
    print(json.dumps(conv_timing.time_lowerings()))
  return 0


if __name__ == "__main__":
  options.define(places=False)
  sys.exit(app.run(main, flags_parser=options.parse))
