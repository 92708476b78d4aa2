"""The training loop: dispatches of many meta-steps, checked, logged, checkpointed; it goes on where it was stopped."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import hosts, progress, workdir
from experiments.experiment import Experiment
from experiments.warp import Offline
from warpjax import checkpoints, parallel, training
from warpjax.training import TrainState
from warpjax.types import TaskSampler

Dispatch = Callable[[TrainState, TaskSampler], tuple[TrainState, dict[str, jax.Array]]]


OnNonfinite = Literal["stop", "skip"]


class Trained(NamedTuple):
  """A run, as far as it came.

  Attributes:
    state: Its state.
    seconds: Spent in it, over all of its processes.
    skipped: Meta-steps whose update was left out as not finite.
    signal: The number of the signal that stopped it, 0 if it is finished.
  """

  state: TrainState
  seconds: float
  skipped: int = 0
  signal: int = 0


def train(
  experiment: Experiment,
  directory: pathlib.Path,
  *,
  on_nonfinite: OnNonfinite = "stop",
  say: Callable[[str], object] = hosts.say,
) -> Trained:
  """Trains to the end, or to a signal, from the newest checkpoint in the workdir.

  Dispatches always start at multiples of `steps_per_dispatch`, so that a resumed run is the same sequence of the same
  programs as an uninterrupted one, and equal to it bit for bit on one machine.

  Args:
    experiment: What to train.
    directory: The workdir, which every host of the run must see.
    on_nonfinite: "stop" at a loss, meta-gradient or parameters that are not finite, or "skip" that update and count it.
    say: Called with messages for the user.

  Returns:
    The run; its state is this host's.

  Raises:
    FloatingPointError: When a meta-loss, meta-gradient or parameter is not finite; the last good checkpoint stays.
    ValueError: When the checkpoints cannot be used.
  """
  run = experiment.run
  mesh = parallel.device_mesh(num_devices(run.tasks_per_step))
  with checkpoints.open_manager(directory / workdir.CHECKPOINTS) as manager:
    state, before = _restore(manager, experiment, say, mesh)
    sampler = parallel.on_every_host(experiment.data.train, mesh)
    hosts.from_first(lambda: workdir.rewind_metrics(directory, int(state.step)))
    started, seconds, skipped = time.monotonic() - before["seconds"], before["seconds"], before["skipped"]
    dispatches: dict[int, Dispatch] = {}
    show = progress.bar(run.num_meta_steps, int(state.step), _name(run), shown=hosts.is_first())
    with progress.stop_signal() as signal, show as report:
      while (first := int(state.step)) < run.num_meta_steps and not hosts.largest(signal()):
        count = min(run.steps_per_dispatch, run.num_meta_steps - first)
        dispatch = dispatches.setdefault(count, make_dispatch(experiment, count, mesh, on_nonfinite))
        state, found = dispatch(state, sampler)
        metrics = jax.device_get(found)  # waits: several dispatches in flight deadlock on several CPU devices
        left_out = _check_finite(metrics, first, manager, on_nonfinite, say)
        done, seconds, skipped = first + count, time.monotonic() - started, skipped + left_out
        row = _row(metrics)
        if hosts.is_first():
          workdir.append_metrics(directory, [{"step": done, "split": "train", "seconds": round(seconds, 3), **row}])
        report(done, {name: row[name] for name in ("loss", experiment.spec.metric) if name in row})
        if done % run.checkpoint_every == 0 or done == run.num_meta_steps or hosts.largest(signal()):
          extra = {"seconds": seconds, "skipped": skipped, "data": experiment.data.description}
          checkpoints.save(manager, done, parallel.on_every_host(state, mesh), extra)
      came = hosts.largest(signal()) if int(state.step) < run.num_meta_steps else 0
      return Trained(parallel.on_this_host(parallel.on_every_host(state, mesh)), seconds, skipped, came)


def make_dispatch(
  experiment: Experiment, num_steps: int, mesh: jax.sharding.Mesh, on_nonfinite: OnNonfinite = "stop"
) -> Dispatch:
  """`num_steps` meta-steps in one call, over the devices of the mesh; the sampler's arrays are its argument."""
  run = experiment.run
  axis_name = parallel.DEVICES if mesh.size > 1 else None
  task_chunk = run.task_chunk or None
  offline = isinstance(experiment.meta_grad, Offline)
  make_step = experiment.meta_grad.make_step if offline else partial(training.meta_step, experiment.meta_grad)
  step = make_step(experiment.optimizer, axis_name=axis_name, task_chunk=task_chunk)
  if on_nonfinite == "skip":
    step = training.skip_nonfinite(step)

  def dispatch(state: TrainState, sampler: TaskSampler) -> tuple[TrainState, dict[str, jax.Array]]:
    many = training.many_steps(
      step, sampler, tasks_per_step=run.tasks_per_step, num_steps=num_steps, axis_name=axis_name
    )
    return many(state) if mesh.size == 1 else parallel.over_devices(many, mesh, takes_tasks=False)(state)

  return jax.jit(dispatch)


def start(experiment: Experiment) -> TrainState:
  """The state before the first meta-step."""
  run = experiment.run

  def init(key: jax.Array) -> TrainState:
    x = jax.eval_shape(experiment.data.train, key).support[0]
    params, shared = experiment.network.init(jax.random.fold_in(key, 0), jnp.zeros(x.shape, x.dtype))
    return training.init(
      key,
      experiment.inner.rule,
      params,
      shared,
      experiment.optimizer,
      meta_grad=experiment.meta_grad,
      tasks_per_step=run.tasks_per_step,
    )

  return jax.jit(init)(jax.random.key(run.seed))


def num_devices(tasks_per_step: int) -> int:
  """The most devices that the tasks of a meta-step divide over, as many of each host.

  Raises:
    ValueError: When the tasks do not divide over the hosts.
  """
  count = jax.process_count()
  if tasks_per_step % count:
    raise ValueError(f"config.tasks_per_step must be a multiple of the {count} processes; got {tasks_per_step}.")
  return max(n for n in range(count, jax.device_count() + 1, count) if tasks_per_step % n == 0)


def restore(experiment: Experiment, directory: pathlib.Path, *, say: Callable[[str], object] = hosts.say) -> TrainState:
  """The newest state in a workdir, for evaluation.

  Raises:
    ValueError: Where there is none.
  """
  with checkpoints.open_manager(directory / workdir.CHECKPOINTS) as manager:
    if not checkpoints.steps(manager):
      raise ValueError(f"{directory} holds no checkpoint; train first.")
    return _restore(manager, experiment, say, parallel.device_mesh(1))[0]


def _restore(
  manager: checkpoints.Manager, experiment: Experiment, say: Callable[[str], object], mesh: jax.sharding.Mesh
) -> tuple[TrainState, dict[str, Any]]:
  state = parallel.on_every_host(start(experiment), mesh)
  restored = checkpoints.restore_latest(manager, state, warn=say)
  if restored is None:
    return state, {"seconds": 0.0, "skipped": 0}
  there, here = restored.extra["data"], experiment.data.description
  if there != here:
    differing = "; ".join(workdir.differences(there, here))
    raise ValueError(f"{manager.directory} was trained on other data: {differing}.")
  say(f"Resuming {_name(experiment.run)} at meta-step {restored.step}.")
  return restored.state, {"skipped": 0, **restored.extra}


def _row(metrics: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Means over a dispatch, of the meta-steps that were not skipped; how many were is a sum."""
  taken = metrics["finite"]
  means = {name: float(np.mean(values[taken])) for name, values in metrics.items()} if np.any(taken) else {}
  counts = {"skipped": int(np.sum(metrics["skipped"]))} if "skipped" in metrics else {}
  return {name: mean for name, mean in means.items() if name != "finite" and np.isfinite(mean)} | counts


def _check_finite(
  metrics: Mapping[str, np.ndarray],
  first: int,
  manager: checkpoints.Manager,
  on_nonfinite: OnNonfinite,
  say: Callable[[str], object],
) -> int:
  """How many meta-steps were skipped; where they may not be, an error says what was not finite and where."""
  bad = np.flatnonzero(~metrics["finite"])
  if not len(bad):
    return 0
  index, count = int(bad[0]), len(metrics["finite"])
  found = f"meta-step {first + index + 1}: {_what(metrics, index)} not finite (meta-loss {metrics['loss'][index]:.4g})."
  if on_nonfinite == "skip":
    say(f"{found} Skipped, as were {len(bad)} of these {count} meta-steps in all.")
    return len(bad)
  last = max(checkpoints.steps(manager), default=None)
  kept = "No checkpoint was saved before it" if last is None else f"The checkpoint of meta-step {last} is kept"
  raise FloatingPointError(
    f"{found} Try a smaller inner.learning_rate, a smaller optimizer.learning_rate, optimizer.clip_norm=10, or "
    f"--on_nonfinite=skip to leave such updates out. {kept}."
  )


def _what(metrics: Mapping[str, np.ndarray], index: int) -> str:
  for prefix, words in (("grad_norm/", "the meta-gradient"), ("param_norm/", "the parameters")):
    blocks = [name.removeprefix(prefix) for name in metrics if name.startswith(prefix)]
    bad = [f"{words} of block {block!r}" for block in blocks if not np.isfinite(metrics[prefix + block][index])]
    if bad:
      return " and ".join(bad) + (" are" if len(bad) > 1 or prefix == "param_norm/" else " is")
  return "the meta-loss is"


def _name(run: Any) -> str:
  return f"{run.experiment}:{run.method}"
