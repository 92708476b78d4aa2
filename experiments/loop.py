"""The training loop: dispatches of many meta-steps, checked, logged, checkpointed; it goes on where it was stopped."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import progress, workdir
from experiments.experiment import Experiment
from experiments.warp import Offline
from warpjax import checkpoints, cost, parallel, sanity, training
from warpjax.training import TrainState
from warpjax.types import TaskSampler

Dispatch = Callable[[TrainState, TaskSampler], tuple[TrainState, dict[str, jax.Array]]]


class Trained(NamedTuple):
  """A run, as far as it came.

  Attributes:
    state: Its state.
    seconds: Spent in it, over all of its processes.
    signal: The number of the signal that stopped it, 0 if it is finished.
  """

  state: TrainState
  seconds: float
  signal: int


def train(experiment: Experiment, directory: pathlib.Path, *, say: Callable[[str], object] = print) -> Trained:
  """Trains to the end, or to a signal, from the newest checkpoint in the workdir.

  Dispatches always start at multiples of `steps_per_dispatch`, so that a resumed run is the same sequence of the same
  programs as an uninterrupted one, and equal to it bit for bit on one machine.

  Args:
    experiment: What to train.
    directory: The workdir.
    say: Called with messages for the user.

  Returns:
    The run.

  Raises:
    FloatingPointError: When a meta-loss or meta-gradient is not finite; the last good checkpoint stays.
    ValueError: When the checkpoints cannot be used.
  """
  run = experiment.run
  with checkpoints.open_manager(directory / workdir.CHECKPOINTS) as manager:
    state, seconds = _restore(manager, experiment, say)
    workdir.rewind_metrics(directory, int(state.step))
    started = time.monotonic() - seconds
    mesh = parallel.device_mesh(num_devices(run.tasks_per_step))
    dispatches: dict[int, Dispatch] = {}
    with progress.stop_signal() as signal, progress.bar(run.num_meta_steps, int(state.step), _name(run)) as report:
      while (first := int(state.step)) < run.num_meta_steps and not signal():
        count = min(run.steps_per_dispatch, run.num_meta_steps - first)
        if new := count not in dispatches:
          dispatches[count] = make_dispatch(experiment, count, mesh)
          _say_cost(dispatches[count], state, experiment, count, say)
        before = state.meta_params
        state, metrics = dispatches[count](state, experiment.data.train)
        metrics = jax.device_get(metrics)  # waits: several dispatches in flight deadlock on several CPU devices
        _check_finite(metrics, first, manager)
        if new and first == 0:
          _warn_of_still_leaves(before, state.meta_params, count, say)
        done, seconds = first + count, time.monotonic() - started
        row = {name: float(np.mean(values)) for name, values in metrics.items() if name != "finite"}
        workdir.append_metrics(directory, [{"step": done, "split": "train", "seconds": round(seconds, 3), **row}])
        report(done, {name: row[name] for name in ("loss", experiment.spec.metric) if name in row})
        if done % run.checkpoint_every == 0 or done == run.num_meta_steps or signal():
          checkpoints.save(manager, done, state, {"seconds": seconds, "data": experiment.data.description})
      return Trained(state, seconds, signal() if int(state.step) < run.num_meta_steps else 0)


def make_dispatch(experiment: Experiment, num_steps: int, mesh: jax.sharding.Mesh) -> Dispatch:
  """`num_steps` meta-steps in one call, over the devices of the mesh; the sampler's arrays are its argument."""
  run = experiment.run
  axis_name = parallel.DEVICES if mesh.size > 1 else None
  task_chunk = run.task_chunk or None
  offline = isinstance(experiment.meta_grad, Offline)
  make_step = experiment.meta_grad.make_step if offline else partial(training.meta_step, experiment.meta_grad)
  step = make_step(experiment.optimizer, axis_name=axis_name, task_chunk=task_chunk)

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
  """The most devices that the tasks of a meta-step divide over."""
  return max(n for n in range(1, jax.device_count() + 1) if tasks_per_step % n == 0)


def restore(experiment: Experiment, directory: pathlib.Path, *, say: Callable[[str], object] = print) -> TrainState:
  """The newest state in a workdir, for evaluation.

  Raises:
    ValueError: Where there is none.
  """
  with checkpoints.open_manager(directory / workdir.CHECKPOINTS) as manager:
    if not checkpoints.steps(manager):
      raise ValueError(f"{directory} holds no checkpoint; train first.")
    return _restore(manager, experiment, say)[0]


def _restore(
  manager: checkpoints.Manager, experiment: Experiment, say: Callable[[str], object]
) -> tuple[TrainState, float]:
  state = start(experiment)
  restored = checkpoints.restore_latest(manager, state, warn=say)
  if restored is None:
    return state, 0.0
  there, here = restored.extra["data"], experiment.data.description
  if there != here:
    differing = "; ".join(workdir.differences(there, here))
    raise ValueError(f"{manager.directory} was trained on other data: {differing}.")
  say(f"Resuming {_name(experiment.run)} at meta-step {restored.step}.")
  return restored.state, restored.extra["seconds"]


def _say_cost(
  dispatch: Any, state: TrainState, experiment: Experiment, count: int, say: Callable[[str], object]
) -> None:
  found = cost.compiled_cost(dispatch, state, experiment.data.train)  # the call that follows does not compile again
  each = found._replace(flops=found.flops / count)
  say(f"A meta-step of {_name(experiment.run)}, data and state included: {each} on each device.")


def _warn_of_still_leaves(before: Any, after: Any, count: int, say: Callable[[str], object]) -> None:
  still = sanity.zero_leaves(jax.tree.map(lambda old, new: np.asarray(old) != np.asarray(new), before, after))
  if still:
    say(
      f"Warning: {', '.join(still)} did not move in {count} meta-steps: the meta-gradient there is exactly zero, or "
      "its outer learning rate is. `python -m experiments.check` tells more."
    )


def _check_finite(metrics: Mapping[str, np.ndarray], first: int, manager: checkpoints.Manager) -> None:
  if np.all(metrics["finite"]):
    return
  index = int(np.argmin(metrics["finite"]))
  blocks = [
    name for name, values in metrics.items() if name.startswith("grad_norm/") and not np.isfinite(values[index])
  ]
  what = " and ".join(f"the meta-gradient of block {name.removeprefix('grad_norm/')!r}" for name in blocks)
  last = max(checkpoints.steps(manager), default=None)
  kept = "No checkpoint was saved before it" if last is None else f"The checkpoint of meta-step {last} is kept"
  raise FloatingPointError(
    f"meta-step {first + index + 1}: {what or 'the meta-loss'} is not finite (meta-loss {metrics['loss'][index]:.4g}). "
    f"Try a smaller inner.learning_rate, a smaller optimizer.learning_rate, or optimizer.clip_norm=10. {kept}."
  )


def _name(run: Any) -> str:
  return f"{run.experiment}:{run.method}"
