"""Chooses the lowering of convolutions on a device that `conv.AUTO_LOWERING` does not list, by one measurement.

  python -m experiments.lowering

`warpjax train` runs it in a separate process at the first new run on such a device. It writes the choice into the run's
config.json as `network.lowering`, and stores it in the user's cache until the device or a version changes. With
`--config.network.lowering=lax`, `patches` or `auto`, which follows the table, nothing is measured.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from warpjax.diagnostics import timing
from warpjax.networks import conv
from warpjax.runner import cli, workdir
from warpjax.runner.components import learners
from warpjax.runner.config import recipes, registry
from warpjax.runner.machine import hosts, remembered

STORE = "lowering"
SECONDS = 180.0  # a limit; both usually take seconds
COMMAND = (sys.executable, "-m", "warpjax.runner.machine.lowering")
CHOICES = tuple(each for each in conv.LOWERINGS if each != "auto")


def for_run(
  config: dict[str, Any],
  directory: str | os.PathLike[str],
  *,
  check: Callable[[], object] = lambda: None,
  listed: Mapping[str, str] = conv.AUTO_LOWERING,
  command: Sequence[str] = COMMAND,
  seconds: float = SECONDS,
  cache_dir: str | None = None,
) -> dict[str, Any]:
  """The config of a run with its lowering: that of the config, else of the workdir, else measured on this device.

  Args:
    config: Nested dicts, as `load_config` returns them.
    directory: The workdir.
    check: Raises a ValueError for an invalid config; called on every host before measuring.
    listed: Backends with a known lowering, which are not measured.
    command: The command that measures and prints its times as JSON.
    seconds: Time limit of the measurement.
    cache_dir: Folder that stores the choice; None for the user's cache.

  Returns:
    The config, with `network.lowering` if there is a choice.
  """
  if not has_convolutions(config) or of(config) is not None:
    return config
  begun = hosts.from_first(lambda: workdir.begun_config(directory))
  if begun is not None:  # on any device: another lowering would be another config
    chosen = of(begun)
  elif jax.default_backend() in listed:
    return config
  else:
    chosen = hosts.from_first(lambda: _recalled(cache_dir))
    if chosen is None:
      check()
      chosen = hosts.from_first(lambda: _measured(command, seconds, cache_dir))
  return recipes.lay_over(config, {"network": {"lowering": chosen}}) if chosen else config


def has_convolutions(config: Mapping[str, Any]) -> bool:
  """Whether the network of a config takes a lowering."""
  network = config.get("network")
  make = registry.TABLES["network"].get(str(network.get("name"))) if isinstance(network, Mapping) else None
  return make is not None and learners.reader(make) is learners.convolutional


def of(config: Mapping[str, Any]) -> Any:
  """The lowering of a config; None if it has none."""
  network = recipes.without_none(config).get("network")
  return network.get("lowering") if isinstance(network, Mapping) else None


def fastest(times: Mapping[str, Mapping[str, float]]) -> str:
  """The lowering with the smaller total time of a gradient and a gradient through an inner step."""
  return min(CHOICES, key=lambda lowering: _together(times[lowering]))


def _together(times: Mapping[str, float]) -> float:
  return times["gradient"] + times["second_order"]


def _recalled(cache_dir: str | None) -> str | None:
  """The stored choice for this device; None if there is none."""
  device = jax.devices()[0].device_kind
  chosen = remembered.recall(STORE, remembered.key(device), cache_dir)
  if chosen not in CHOICES:
    return None
  hosts.say(f"Convolutions on {device}: {chosen}, as measured before. {_override(chosen)}", error=True)
  return str(chosen)


def _measured(command: Sequence[str], seconds: float, cache_dir: str | None) -> str:
  """Measures and stores the choice; after any error it is `lax`, which is always correct."""
  device = jax.devices()[0].device_kind
  hosts.say(f"Convolutions on {device}: measuring both lowerings once, for at most {seconds:.0f} s.", error=True)
  try:
    times = _measure(command, seconds)
    chosen = fastest(times)
  except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError, IndexError) as error:
    hosts.say(f"Convolutions on {device}: lax, since measuring failed ({_why(error)}). {_override('lax')}", error=True)
    return "lax"
  shown = ", ".join(f"{name} {1e3 * _together(times[name]):.3g} ms" for name in CHOICES)
  trouble = remembered.keep(STORE, remembered.key(device), chosen, cache_dir)
  note = f"It is not remembered: {trouble}. " if trouble else ""
  each = f"{shown} for a gradient and a meta-gradient"
  hosts.say(f"Convolutions on {device}: {chosen} ({each}). {note}{_override(chosen)}", error=True)
  return chosen


def _measure(command: Sequence[str], seconds: float) -> Any:
  """The times, from a process of its own: what crashes or hangs there leaves the run alone."""
  root = pathlib.Path(__file__).parents[3]
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


def main() -> None:
  """Prints the seconds of each lowering as JSON."""
  print(json.dumps(timing.time_lowerings()))


def command() -> None:
  """Defines the flags and runs."""
  cli.define(places=False)
  cli.run(main)


if __name__ == "__main__":
  command()
