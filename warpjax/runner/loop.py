"""The training loop: dispatches of many meta-steps, checked, logged and checkpointed; it resumes bit for bit."""

from __future__ import annotations

import contextlib
import pathlib
import time
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax import training
from warpjax.runner import origins, selection, workdir
from warpjax.runner.config import registry
from warpjax.runner.experiment import Experiment
from warpjax.runner.machine import hosts
from warpjax.runner.reporting import progress, watch
from warpjax.runner.reporting import writers as writing
from warpjax.runner.reporting.writers import Writer
from warpjax.tasks import few_shot
from warpjax.training import TrainState, checkpoints, parallel
from warpjax.types import MetaParams, TaskSampler

OnNonfinite = Literal["stop", "skip"]


class Trained(NamedTuple):
  """Training result, possibly interrupted.

  Attributes:
    state: The training state.
    seconds: Training time, summed over the processes that resumed it.
    skipped: Meta-steps whose update was skipped because it was not finite.
    signal: The number of the signal that stopped training, or 0; the state is saved in either case.
    origin: Start and extensions of the run, as returned by `origins.going_on`.
  """

  state: TrainState
  seconds: float
  skipped: int = 0
  signal: int = 0
  origin: Mapping[str, Any] = types.MappingProxyType({})


class Kept(NamedTuple):
  """The checkpoints that a result was measured on, and the origin of the run, as `Trained.origin`."""

  states: list[TrainState]
  origin: Mapping[str, Any]


class Programs:
  """The compiled programs of an experiment: one dispatch for each number of meta-steps in it.

  Args:
    experiment: The experiment to train.
    on_nonfinite: "stop" at a loss, meta-gradient or parameter that is not finite, or "skip" and count that update.
  """

  def __init__(self, experiment: Experiment, on_nonfinite: OnNonfinite = "stop"):
    self.experiment, self.on_nonfinite = experiment, on_nonfinite
    self.mesh = parallel.device_mesh(num_devices(experiment.run.tasks_per_step, experiment.outer_step.in_turn))
    self.dispatch = cache(partial(make_dispatch, experiment, mesh=self.mesh, on_nonfinite=on_nonfinite))

  @cached_property
  def sampler(self) -> TaskSampler:
    """Draws the training tasks; every device has its data."""
    return parallel.on_every_host(self.experiment.data.train, self.mesh)

  def trace(self) -> None:
    """Traces the first dispatch without compiling it; the first call reuses the trace.

    Raises:
      ValueError: For settings that do not fit the shapes of the tasks.
    """
    run = self.experiment.run
    with _waiting("Tracing the meta-step of", self.experiment):
      state = jax.eval_shape(lambda: start(self.experiment))
      self.dispatch(min(run.steps_per_dispatch, run.num_meta_steps)).trace(state, self.experiment.data.train)
    for block in ("shared", "rule"):
      rate = self.experiment.settings["optimizer"].get(f"{block}_learning_rate")
      if rate and not jax.tree.leaves(getattr(state.meta_params, block)):
        raise ValueError(f"config.optimizer.{block}_learning_rate must be 0 for a method without these; got {rate}.")


def train(
  programs: Programs,
  directory: pathlib.Path,
  *,
  init: origins.InitFrom | None = None,
  writers: Sequence[str | Writer] = (),
  say: Callable[[str], object] = hosts.say,
) -> Trained:
  """Trains from the newest checkpoint in the workdir until the end or a signal.

  Dispatches always start at multiples of `steps_per_dispatch`. A resumed run is therefore the same sequence of programs
  as an uninterrupted one, and equal to it bit for bit on one machine.

  Args:
    programs: The programs of the experiment.
    directory: The workdir, which every host of the run can read.
    init: Another run whose meta-parameters are the initial ones.
    writers: Receivers of the rows of metrics besides `metrics.jsonl`; see `writers.opened`.
    say: Called with messages for the user.

  Returns:
    The training result, with the state of this host.

  Raises:
    FloatingPointError: When a meta-loss, meta-gradient or parameter is not finite; the last good checkpoint stays.
    ValueError: When the checkpoints cannot be used.
  """
  experiment, mesh, run = programs.experiment, programs.mesh, programs.experiment.run
  folder = directory / workdir.CHECKPOINTS
  with contextlib.ExitStack() as stack:
    # Importing orbax takes seconds. If there is no checkpoint to restore, it is imported at the first save.
    manager = cache(lambda: stack.enter_context(checkpoints.open_manager(folder)))
    hosts.from_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    begun = hosts.from_first(lambda: bool(checkpoints.steps(folder)))
    with _waiting("Initializing", experiment):
      state, before = _begin(manager() if begun else None, experiment, init, say, mesh)
    first = int(state.step)
    hosts.from_first(lambda: workdir.rewind_metrics(directory, first))
    started, skipped = time.monotonic() - before["seconds"], before["skipped"]
    signal = stack.enter_context(progress.stop_signal())
    report = stack.enter_context(progress.bar(run.num_meta_steps, first, run.name, shown=hosts.is_first()))
    write = stack.enter_context(writing.opened(directory, first, writers if hosts.is_first() else ()))
    validate = stack.enter_context(selection.validation(experiment, directory, first, write))
    done, seconds, stop = first, before["seconds"], hosts.largest(signal())
    while done < run.num_meta_steps and not stop:
      state, metrics = _dispatched(programs, state, say, say_cost=done == first)
      skipped += watch.count_skipped(
        metrics, done, programs.on_nonfinite == "skip", partial(checkpoints.steps, folder), say
      )
      done, seconds, row = int(state.step), time.monotonic() - started, watch.row(metrics)
      if hosts.is_first():
        write({"step": done, "split": "train", "seconds": round(seconds, 3), **row})
      report(done, {name: row[name] for name in ("loss", experiment.spec.metric) if name in row})
      due = done % run.checkpoint_every == 0 or done == run.num_meta_steps
      if due:
        with _waiting(f"Validating meta-step {done} of", experiment):
          validate(done, parallel.on_every_host(state, mesh))
      stop = hosts.largest(signal())  # asked once a dispatch, so that saving and stopping have the same answer
      if due or stop:
        seconds = time.monotonic() - started
        extra = {**before, "seconds": seconds, "skipped": skipped}
        with _waiting(f"Saving meta-step {done} of", experiment):
          checkpoints.save(manager(), done, parallel.on_every_host(state, mesh), extra)
    # A signal during the last save stops the run too, before its evaluation.
    stop = stop or hosts.largest(signal())
    return Trained(parallel.on_this_host(parallel.on_every_host(state, mesh)), seconds, skipped, stop, before["origin"])


def _dispatched(
  programs: Programs, state: TrainState, say: Callable[[str], object], *, say_cost: bool
) -> tuple[TrainState, dict[str, np.ndarray]]:
  """The state after a dispatch, and its metrics; the first one reports its cost and parameters that did not move."""
  run, sampler, first = programs.experiment.run, programs.sampler, int(state.step)
  # Up to the next multiple: an extended run may start between two.
  count = min(run.steps_per_dispatch - first % run.steps_per_dispatch, run.num_meta_steps - first)
  dispatch, old = programs.dispatch(count), state.meta_params if first == 0 else None
  if say_cost:
    with _waiting("Compiling the meta-step of", programs.experiment):
      watch.say_cost(run.name, dispatch, state, sampler, count, say)
  first_number = _waiting(f"Computing the first {count} meta-steps of", programs.experiment)
  with first_number if say_cost else contextlib.nullcontext():
    state, measured = dispatch(state, sampler)
    metrics = jax.device_get(measured)  # waits: several dispatches in flight deadlock on several CPU devices
  if first == 0 and np.all(metrics["finite"]):
    watch.warn_of_still_leaves(old, state.meta_params, count, say)
  return state, metrics


def _waiting(what: str, experiment: Experiment) -> contextlib.AbstractContextManager[None]:
  return progress.waiting(f"{what} {experiment.run.name}", shown=hosts.is_first())


def _begin(
  manager: checkpoints.Manager | None,
  experiment: Experiment,
  init: origins.InitFrom | None,
  say: Callable[[str], object],
  mesh: jax.sharding.Mesh,
) -> tuple[TrainState, dict[str, Any]]:
  """The initial state on the devices of the mesh, and the values saved with each checkpoint."""
  run = experiment.run
  extra = {"seconds": 0.0, "skipped": 0, "data": experiment.data.description, "num_meta_steps": run.num_meta_steps}
  state = parallel.on_every_host(start(experiment), mesh)
  restored = _restore(manager, experiment, state, say) if manager else None
  if restored is not None:
    say(f"Resuming {run.name} at meta-step {restored.step}.")
    counted = {name: restored.extra.get(name, 0) for name in ("seconds", "skipped")}
    has_schedule = registry.has_schedule(experiment.settings["optimizer"])
    origin = origins.going_on(restored, run.num_meta_steps, init, say, has_schedule=has_schedule)
    return restored.state, extra | counted | {"origin": origin}
  if init is None:
    return state, extra | {"origin": {}}
  meta_params, record = origins.load(init, jax.eval_shape(lambda: start(experiment)).meta_params)
  hosts.check_same("--init_from", workdir.as_text(record))
  say(f"Starting {run.name} from {record['workdir']}, meta-step {record['step']}.")
  return parallel.on_every_host(start(experiment, meta_params), mesh), extra | {"origin": {origins.INIT_FROM: record}}


def make_dispatch(
  experiment: Experiment, num_steps: int, mesh: jax.sharding.Mesh, on_nonfinite: OnNonfinite = "stop"
) -> jax.stages.Wrapped:
  """The jitted `(state, sampler) -> (state, metrics)` of `num_steps` meta-steps, over the devices of a mesh."""
  run = experiment.run
  axis_name = parallel.DEVICES if mesh.size > 1 else None
  task_chunk = run.task_chunk or None
  step = experiment.outer_step.make_step(experiment.optimizer, axis_name=axis_name, task_chunk=task_chunk)
  if on_nonfinite == "skip":
    step = training.skip_nonfinite(step)

  def dispatch(state: TrainState, sampler: TaskSampler) -> tuple[TrainState, dict[str, jax.Array]]:
    many = training.many_steps(
      step, sampler, tasks_per_step=run.tasks_per_step, num_steps=num_steps, axis_name=axis_name
    )
    return many(state)

  # The sampler's data are an argument: what a sharded function closes over has no place on the mesh.
  return jax.jit(dispatch) if mesh.size == 1 else parallel.over_devices(dispatch, mesh, takes_tasks=False)


def start(experiment: Experiment, meta_params: MetaParams | None = None) -> TrainState:
  """The state before the first meta-step, from the network's initial parameters or from `meta_params`."""
  run, rule = experiment.run, experiment.inner.rule

  def init(key: jax.Array, loaded: MetaParams | None) -> TrainState:
    x = jax.eval_shape(experiment.data.train, key).support[0]
    zeros = few_shot.as_in_batches(jnp.zeros(x.shape, x.dtype))
    params, shared = experiment.network.init(jax.random.fold_in(key, 0), zeros)
    if loaded is not None:
      params, shared = loaded.initial, loaded.shared
    return training.init(
      key,
      rule if loaded is None else rule._replace(init=lambda key, params: loaded.rule),
      params,
      shared,
      experiment.optimizer,
      meta_grad=experiment.outer_step.meta_grad,
      tasks_per_step=run.tasks_per_step,
    )

  return jax.jit(init)(jax.random.key(run.seed), meta_params)


def num_devices(tasks_per_step: int, in_turn: bool = False) -> int:
  """The largest number of devices that divides the tasks, equally many on each host; one on each if `in_turn`.

  Raises:
    ValueError: If the number of hosts does not divide the tasks.
  """
  count = jax.process_count()
  if tasks_per_step % count:
    raise ValueError(f"config.tasks_per_step must be a multiple of the {count} processes; got {tasks_per_step}.")
  return count if in_turn else max(n for n in range(count, jax.device_count() + 1, count) if tasks_per_step % n == 0)


def restore(experiment: Experiment, directory: pathlib.Path, *, say: Callable[[str], object] = hosts.say) -> TrainState:
  """The checkpoint that the result is measured on: the newest, or the best by validation; see `restore_all`."""
  return restore_all(experiment, directory, say=say).states[0]


def restore_all(experiment: Experiment, directory: pathlib.Path, *, say: Callable[[str], object] = hosts.say) -> Kept:
  """The checkpoints that the result is measured on: the newest, the best by validation, or those of an ensemble.

  Nothing is written, so that a run may train in the workdir meanwhile.

  Raises:
    BusyError: If that run replaced a checkpoint while it was read, or is writing its first.
    ValueError: If there is no checkpoint.
  """
  with _waiting("Restoring", experiment):
    restored = _restore(directory / workdir.CHECKPOINTS, experiment, start(experiment), say)
  if restored is None:
    raise ValueError(f"{directory} has no checkpoint; train first.")
  newest, origin = restored.state, restored.extra.get("origin", {})
  return Kept(selection.best(experiment, directory, newest)[0] if experiment.evaluation.val_tasks else [newest], origin)


def _restore(
  source: checkpoints.Source, experiment: Experiment, template: TrainState, say: Callable[[str], object]
) -> checkpoints.Restored | None:
  """The newest intact checkpoint, which must have been trained on the experiment's data; None if there is none."""
  restored = checkpoints.restore_latest(source, template, warn=say)
  if restored is not None:
    before, now = restored.extra["data"], experiment.data.description
    if before != now:
      differing = "; ".join(workdir.differences(before, now))
      raise ValueError(f"{getattr(source, 'directory', source)} was trained on other data: {differing}.")
  return restored
