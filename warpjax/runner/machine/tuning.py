"""Finds the fastest number of vmapped tasks, and lowering of convolutions, on this machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from warpjax.diagnostics import timing
from warpjax.runner import loop, workdir
from warpjax.runner.config import recipes, settings
from warpjax.runner.experiment import Experiment, build
from warpjax.runner.machine import hosts, lowering, remembered
from warpjax.runner.reporting import progress

Changes = dict[str, Any]
ROUNDS = 5
STORE = "tuned"


class Measured(NamedTuple):
  """A choice, and its median seconds for a meta-step; infinite if it does not fit into memory."""

  changes: Changes
  seconds: float


def fastest(config: Mapping[str, Any], *, say: Callable[[str], object] = hosts.say, **places: Any) -> Changes:
  """The fastest settings on this machine, measured once and stored in the cache.

  Args:
    config: Nested dicts, as `load_config` returns them.
    say: Called with a message on the measurement.
    **places: `data_dir` and `cache_dir`.

  Returns:
    `task_chunk`, and for convolutions `network.lowering`, as nested dicts.

  Raises:
    ValueError: For an invalid config, or with several processes.
  """
  if jax.process_count() > 1:
    raise ValueError("--tune measures on one host; run warpjax tune there and give every host the flags it prints.")
  config = settings.resolved(config)
  known = remembered.recall(STORE, _name(config), places.get("cache_dir"))
  fits = isinstance(known, dict) and known.keys() == set(Measured._fields)
  best = Measured(**known) if fits else remember(config, measure(config, **places), **places)
  say(f"Fastest on this machine: {flags_of(best.changes)}, {1e3 * best.seconds:.3g} ms a meta-step.")
  return best.changes


def for_run(config: Mapping[str, Any], directory: str, **places: Any) -> dict[str, Any]:
  """The config of a run with the choice of its workdir, or the fastest for a new workdir."""
  begun = hosts.from_first(lambda: workdir.begun_config(directory))
  if begun is None:
    return recipes.lay_over(config, fastest(config, **places))
  return recipes.lay_over(config, _changes(begun.get("task_chunk", 0), lowering.of(begun)))


def remember(config: Mapping[str, Any], measured: Sequence[Measured], **places: Any) -> Measured:
  """Stores the fastest choice for this machine and config, and returns it."""
  best = min(measured, key=lambda one: one.seconds)
  if trouble := remembered.keep(STORE, _name(config), best._asdict(), places.get("cache_dir")):
    hosts.say(f"The choice is not remembered: {trouble}.")
  return best


def measure(config: Mapping[str, Any], **places: Any) -> list[Measured]:
  """Times every lowering with the default chunk, then every chunk with the faster lowering, in alternating rounds."""
  lowerings: Sequence[str | None] = lowering.CHOICES if lowering.has_convolutions(config) else (None,)
  choices = [_changes(0, each) for each in lowerings]
  built = [build(recipes.lay_over(config, changes), **places) for changes in choices]
  with progress.waiting(f"Timing the choices of {built[0].run.name}"):
    measured = _timed(choices, built)
  first = min(range(len(measured)), key=lambda index: measured[index].seconds)
  best, run = built[first], built[first].run
  share = run.tasks_per_step // loop.num_devices(run.tasks_per_step, best.outer_step.in_turn)
  chunks = [2**power for power in range(share.bit_length()) if 2**power < share] + [share]
  chunked = [best._replace(run=run._replace(task_chunk=chunk)) for chunk in chunks]
  with progress.waiting(f"Timing {len(chunks)} numbers of vmapped tasks"):
    return measured + _timed([{**choices[first], "task_chunk": chunk} for chunk in chunks], chunked)


def _timed(choices: Sequence[Changes], built: Sequence[Experiment]) -> list[Measured]:
  steps = [ready(experiment) for experiment in built]
  seconds: list[list[float]] = [[] for _ in choices]
  for _ in range(ROUNDS):
    for step, times in zip(steps, seconds, strict=True):
      times.append(step())
  return [Measured(c, statistics.median(times)) for c, times in zip(choices, seconds, strict=True)]


def ready(experiment: Experiment) -> Callable[[], float]:
  """A compiled meta-step as a function that returns its seconds; infinite if it does not fit into memory."""
  programs = loop.Programs(experiment)
  state, sampler, dispatch = loop.start(experiment), programs.sampler, programs.dispatch(1)

  def timed() -> float:
    try:
      return timing.seconds_of(lambda: dispatch(state, sampler), 1, warm_up=0)[0]
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      return float("inf")

  timed()  # compiles
  return timed


def _changes(task_chunk: int, chosen: str | None) -> Changes:
  return {"task_chunk": task_chunk, **({"network": {"lowering": chosen}} if chosen else {})}


def _name(config: Mapping[str, Any]) -> str:
  """The key of a machine and a config."""
  title = f"{jax.devices()[0].device_kind}, {config['experiment']}:{config['method']}"
  others = {key: value for key, value in work(config).items() if key != "task_chunk"}
  return remembered.key(title, jax.device_count(), workdir.as_json(others))


def work(config: Mapping[str, Any]) -> dict[str, Any]:
  """The settings that change the work of a meta-step."""
  left_out = ("seed", "num_meta_steps", "checkpoint_every", "eval", "published", "cpu_devices")
  return {key: value for key, value in config.items() if key not in left_out}


def flags_of(changes: Changes) -> str:
  """The flags of a choice, for a command line."""
  chosen = lowering.of(changes)
  return f"--config.task_chunk={changes['task_chunk']}" + (f" --config.network.lowering={chosen}" if chosen else "")
