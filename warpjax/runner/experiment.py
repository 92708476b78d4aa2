"""Checks a config completely and builds its experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

import warpjax as wj
from warpjax import losses, networks
from warpjax.evaluation.readouts import Readout, query_loss
from warpjax.meta_gradients import Start
from warpjax.runner.components import norm_stats, outer_step
from warpjax.runner.components.rules import batch_fn
from warpjax.runner.config import recipes, registry, run_settings, settings
from warpjax.runner.config.run_settings import Evaluation, Published, Run
from warpjax.runner.families import base
from warpjax.runner.machine import hosts
from warpjax.runner.reporting import progress
from warpjax.tasks import augment
from warpjax.training import TrainState
from warpjax.types import InnerLoop, LossFn, MetaParams, Task


class Experiment(NamedTuple):
  """A config, built.

  `norm_stats` names the batch statistics of the result, "none" without batch norm. `readout` measures with them, or
  makes such a readout from the trained state (`readout_of`). `others` measure with the other choices. `start` computes
  the start of a test task; None for the learned parameters. `published` may be None.
  `settings` is the config, with the defaults of the settings that it leaves out.
  """

  run: Run
  evaluation: Evaluation
  spec: base.Spec
  data: base.Data
  network: networks.Network
  inner: InnerLoop
  test_inner: InnerLoop
  norm_stats: str
  readout: Readout | norm_stats.MakeReadout
  others: dict[str, Readout]
  start: Start | None
  outer_step: outer_step.OuterStep
  optimizer: optax.GradientTransformation
  published: Published | None
  settings: Mapping[str, Any]

  def readout_of(self, state: TrainState) -> Readout:
    """Measures the points of test and validation tasks, for a state of the run."""
    if isinstance(self.readout, Readout):
      return self.readout
    return self.readout(*self.test_loop(state), self.data.train, jax.random.key(self.evaluation.seed))

  def test_loop(self, state: TrainState) -> tuple[InnerLoop, MetaParams]:
    """The inner loop and meta-parameters for test and validation tasks."""
    if self.evaluation.optimizer_state == "fresh":
      return self.test_inner, state.meta_params
    return wj.evaluation.continued(self.test_inner, state.meta_params, state.carry)


def build(config: Mapping[str, Any], *, data_dir: str | None = None, cache_dir: str | None = None) -> Experiment:
  """Checks every key of a config and builds its experiment; nothing is compiled.

  Args:
    config: Nested dicts, as `load_config` returns them; a setting that is None is left to its default.
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.

  Returns:
    An `Experiment`.

  Raises:
    ValueError: For a key that is unknown, missing or of the wrong type, or a value that is not allowed.
    FileNotFoundError: For a data set that is missing and cannot be fetched.
  """
  config = recipes.without_none(config)
  run_settings.check_tables(config)
  registry.check_modules(config.get("modules", {}))
  config = settings.resolved(config)
  run, evaluation, published = run_settings.parsed(config)
  tables = {name: config[name] for name in run_settings.TABLES[:-1]}
  optimizer = registry.named("optimizer", tables, num_meta_steps=run.num_meta_steps)
  spec = registry.named("data", tables, data_dir=data_dir, cache_dir=cache_dir)
  network = registry.network(tables, spec.num_outputs)
  network = network._replace(init=jax.jit(network.init))  # traced once: for shapes, batch norm and parameters
  loss_of = registry.loss(run.loss, spec.metric)
  _check_choices(tables, run, evaluation, spec)
  inner, test_inner = _loops(tables, run, evaluation, spec, network, loss_of)
  made = registry.meta_gradient(tables, inner, network.apply)
  outer_step.check(made, tables, run.tasks_per_step)
  with progress.waiting(f"Reading the data of {run.name}", shown=hosts.is_first()):
    data = spec.load().as_arguments()  # last, once everything cheap has been checked
  step = outer_step.resolve(made, _checked_task(tables, evaluation, spec, data))
  start = registry.start(tables["meta_gradient"], network.apply)
  readouts = _readouts(evaluation, spec, data, test_inner, start, network, loss_of)
  return Experiment(
    run, evaluation, spec, data, network, inner, test_inner, *readouts, start, step, optimizer, published, config
  )


def _loops(
  tables: Mapping[str, Any],
  run: Run,
  evaluation: Evaluation,
  spec: base.Spec,
  network: networks.Network,
  loss_of: Callable[..., LossFn],
) -> tuple[InnerLoop, InnerLoop]:
  """The inner loop of training, and that of the test."""
  loop = registry.inner(tables["inner"], loss_of(network.apply))
  inner = spec.loop(loop, network, True)
  if run.loss and (inner.loss_fn is not loop.loss_fn or inner.query_loss_fn is not loop.query_loss_fn):
    data = tables["data"]["name"]
    raise ValueError(f"config.loss must be None with config.data.name={data!r}, which has its own; got {run.loss!r}.")
  if network.takes_key:
    batch_fns = augment.keyed(inner.batch_fn), augment.keyed_query(inner.query_batch_fn)
    inner = inner._replace(batch_fn=batch_fns[0], query_batch_fn=batch_fns[1])
  inner = norm_stats.in_training(run.train_norm_stats, inner, network, loss_of)
  test = loop if evaluation.prox is None else loop._replace(prox=evaluation.prox)
  if evaluation.batch_size:
    batch = tables["inner"].get("batch", "full")
    test = test._replace(batch_fn=batch_fn("config.eval.batch_size", batch, evaluation.batch_size))
  return inner, spec.loop(test, network, False)


def _check_choices(tables: Mapping[str, Any], run: Run, evaluation: Evaluation, spec: base.Spec) -> None:
  """Refuses choices that the data or other settings do not allow."""
  if spec.own_batches:
    _refuse_batches(tables["data"]["name"], tables["inner"], evaluation)
  norm_stats.check("config.train_norm_stats", run.train_norm_stats, spec.train_norm_stats)
  norm_stats.check("config.eval.norm_stats", evaluation.norm_stats, spec.norm_stats)
  if evaluation.optimizer_state == "trained" and not tables["meta_gradient"].get("carry_optimizer", False):
    raise ValueError("config.eval.optimizer_state must be 'fresh' unless config.meta_gradient.carry_optimizer is True.")
  _check_ensemble(evaluation, run, spec)


def _checked_task(tables: Mapping[str, Any], evaluation: Evaluation, spec: base.Spec, data: base.Data) -> Task:
  """The shapes of a training task, after checking that tasks of both splits are large enough."""
  train_task, test_task = (jax.eval_shape(lambda d=draw: d(jax.random.key(0))) for draw in (data.train, data.test_task))
  if evaluation.val_tasks < 0 or (evaluation.val_tasks and data.val is None):
    allowed = "0 or more" if data.val else "0"
    raise ValueError(f"config.eval.val_tasks must be {allowed} for these data; got {evaluation.val_tasks}.")
  if not spec.own_batches:
    in_training = tables["inner"].get("batch_size", 0)
    _check_batch("config.inner.batch_size", in_training, train_task)
    in_test = "config.eval.batch_size (0 for config.inner's)"
    _check_batch(in_test, evaluation.batch_size or in_training, test_task)
  return train_task


def _readouts(
  evaluation: Evaluation,
  spec: base.Spec,
  data: base.Data,
  inner: InnerLoop,
  start: Start | None,
  network: networks.Network,
  loss_of: Callable[..., LossFn],
) -> tuple[str, Readout | norm_stats.MakeReadout, dict[str, Readout]]:
  """The batch statistics of the result, its readout, and the readouts of the other choices."""
  if evaluation.ensemble:
    loss_of = losses.margins
    inner = inner._replace(query_loss_fn=loss_of(network.apply))
  if not norm_stats.has_norm(network, data.train):
    return norm_stats.NONE, query_loss(inner), {}
  name = evaluation.norm_stats
  names = [choice for choice in spec.norm_stats if choice == name or choice not in spec.costly]
  others = norm_stats.readouts(names, inner, network, loss_of, spec.whole_task)
  if name == "per_step":
    return name, norm_stats.per_step(network, loss_of, evaluation.num_steps, start), others
  return name, others.pop(name), others


def _refuse_batches(data: str, inner: Mapping[str, Any], evaluation: Evaluation) -> None:
  """Refuses settings that would be ignored."""
  sizes = {f"inner.{key}": inner.get(key, default) for key, default in (("batch", "full"), ("batch_size", 0))}
  for key, value in {**sizes, "eval.batch_size": evaluation.batch_size}.items():
    if value not in ("full", 0):
      raise ValueError(
        f"config.{key} cannot be set with config.data.name {data!r}, which has its own batches; got {value!r}."
      )


def _check_batch(setting: str, batch_size: int, task: Task) -> None:
  examples = jax.tree.leaves(task.support)[0].shape[0]
  if batch_size > examples:
    raise ValueError(
      f"{setting} must be at most the support examples that config.data has in a task, {examples}; got {batch_size}."
    )


def _check_ensemble(evaluation: Evaluation, run: Run, spec: base.Spec) -> None:
  if not evaluation.ensemble:
    return
  if spec.metric != "accuracy" or not evaluation.val_tasks:
    raise ValueError(
      "config.eval.ensemble averages class probabilities of checkpoints that config.eval.val_tasks chose; "
      f"got the metric {spec.metric!r} and {evaluation.val_tasks} validation tasks."
    )
  most = -(-run.num_meta_steps // run.checkpoint_every)
  if not 2 <= evaluation.ensemble <= most:
    raise ValueError(
      f"config.eval.ensemble must be 0, or at least 2 and at most the checkpoints of the run, {most}; "
      f"got {evaluation.ensemble}."
    )
