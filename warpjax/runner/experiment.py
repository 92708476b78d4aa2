"""An experiment: a config, checked whole and built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import optax

import warpjax as wj
from warpjax import losses, networks
from warpjax.evaluation.readouts import Readout, query_loss
from warpjax.meta_gradients.own_parameters import Draw
from warpjax.runner.components import norm_stats, outer_step
from warpjax.runner.config import registry, schema
from warpjax.runner.families import base
from warpjax.tasks import augment
from warpjax.training import TrainState
from warpjax.types import InnerLoop, LossFn, MetaParams, Task


class Run(NamedTuple):
  """The settings that belong to no table.

  Attributes:
    experiment: Name of the config file.
    method: Its row.
    seed: Of parameters, rule parameters and training tasks.
    num_meta_steps: Outer updates.
    tasks_per_step: Tasks in each, over all devices.
    checkpoint_every: Meta-steps between checkpoints, a multiple of `steps_per_dispatch`.
    steps_per_dispatch: Meta-steps in one call to the device.
    task_chunk: Tasks computed side by side; 0 chooses.
    train_norm_stats: The batch statistics of the query loss in training; a meta-gradient without one does not read it.
    modules: The folder and SHA-256 of each module of a user's that the config names functions of.
    loss: `module:function` of a loss, `(apply) -> loss`, in place of that of the data's metric.
  """

  experiment: str
  method: str
  seed: int
  num_meta_steps: int
  tasks_per_step: int
  checkpoint_every: int
  steps_per_dispatch: int
  task_chunk: int = 0
  train_norm_stats: norm_stats.TrainNormStats = "transductive"
  loss: str | None = None
  modules: dict | None = None

  @property
  def name(self) -> str:
    """As `--config` names it."""
    return f"{self.experiment}:{self.method}"


class Evaluation(NamedTuple):
  """How the result is measured, on tasks of the test split.

  Attributes:
    num_tasks: Test tasks.
    num_steps: Inner steps.
    seed: Of the list of test tasks; the same for every method, so that results pair.
    batch_size: Examples in an inner step; 0 for as in training.
    prox: Weight of the proximal term; None for as in training.
    norm_stats: The batch statistics that query examples are normalised with; a network without batch norm ignores it.
    val_tasks: Validation tasks at each checkpoint, by whose mean the checkpoint of the result is chosen; 0 takes the
      last. Test tasks choose nothing.
    ensemble: Checkpoints, the best on validation tasks, whose class probabilities are averaged; 0 for no ensemble.
    optimizer_state: Whether a test task starts from a "fresh" state of the inner optimizer or the "trained" one, which
      a meta-gradient with `carry_optimizer` has.
  """

  num_tasks: int
  num_steps: int
  seed: int = 0
  batch_size: int = 0
  prox: float | None = None
  norm_stats: norm_stats.NormStats = "transductive"
  val_tasks: schema.OfSelection[int] = 0
  ensemble: schema.OfSelection[int] = 0
  optimizer_state: Literal["fresh", "trained"] = "fresh"


class Published(NamedTuple):
  """What the paper reports for this row; an `interval` of 0 where it gives none."""

  number: float
  interval: float
  source: str


class Experiment(NamedTuple):
  """A config, built.

  `norm_stats` names the batch statistics of the result, "none" without batch norm, and `readout` judges under them, or
  makes a readout of what was trained (`readout_of`); `others` judge under the other choices. `draw` is what a test task
  draws for itself, None for nothing. `published` may be None.
  `settings` is the config.
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
  draw: Draw | None
  outer_step: outer_step.OuterStep
  optimizer: optax.GradientTransformation
  published: dict[str, Any] | None
  settings: Mapping[str, Any]

  def readout_of(self, state: TrainState) -> Readout:
    """What judges the points of test and validation tasks, for a state of the run."""
    if isinstance(self.readout, Readout):
      return self.readout
    return self.readout(*self.test_loop(state), self.data.train, jax.random.key(self.evaluation.seed))

  def test_loop(self, state: TrainState) -> tuple[InnerLoop, MetaParams]:
    """How test and validation tasks are adapted to, and with which meta-parameters."""
    if self.evaluation.optimizer_state == "fresh":
      return self.test_inner, state.meta_params
    return wj.evaluation.continued(self.test_inner, state.meta_params, state.carry)


TABLES = ("data", "network", "inner", "meta_gradient", "optimizer", "eval", "published")


def build(config: Mapping[str, Any], *, data_dir: str | None = None, cache_dir: str | None = None) -> Experiment:
  """Builds an experiment, once every key of its config is known to be read; nothing compiles here.

  Args:
    config: Nested dicts: the keys of `Run`, and the tables of `TABLES`, of which `published` may be left out; a setting
      that is None is left to its default.
    data_dir: Where prepared data are.
    cache_dir: Where arrays made from them go.

  Returns:
    An `Experiment`.

  Raises:
    ValueError: For a key that is unknown, missing or of the wrong type, or a value that is not allowed.
    FileNotFoundError: For a data set that is not there and cannot be fetched.
  """
  config = schema.given(config)
  registry.check_modules(config.get("modules", {}))
  tables, run, evaluation, published = _parsed(config)
  optimizer = registry.named("optimizer", tables, num_meta_steps=run.num_meta_steps)
  spec = registry.named("data", tables, data_dir=data_dir, cache_dir=cache_dir)
  network = registry.network(tables, spec.num_outputs)
  loss_of = registry.loss(run.loss, spec.metric)
  _check_choices(tables, run, evaluation, spec)
  inner, test_inner = _loops(tables, run, evaluation, spec, network, loss_of)
  made = registry.meta_gradient(tables, inner)
  outer_step.check(made, tables, run.tasks_per_step)
  data = spec.load()  # last, once everything cheap has been checked
  step = outer_step.resolve(made, _checked_task(tables, evaluation, spec, data))
  judged = _judged(evaluation, spec, data, test_inner, network, loss_of)
  draw = registry.draw(tables["meta_gradient"])
  return Experiment(
    run, evaluation, spec, data, network, inner, test_inner, *judged, draw, step, optimizer, published, config
  )


def _parsed(config: Mapping[str, Any]) -> tuple[dict[str, Any], Run, Evaluation, dict[str, Any] | None]:
  """The tables of a config, and those of its settings that name no function."""
  tables = {name: config[name] for name in TABLES if name in config}
  for name in TABLES[:-1]:
    if not isinstance(tables.get(name), Mapping):
      raise ValueError(f"config.{name} must be a table; got {tables.get(name, 'nothing')!r}.")
  run = _checked(schema.call("config", {key: config[key] for key in config if key not in tables}, Run, also=TABLES))
  evaluation = schema.call("config.eval", tables["eval"], Evaluation)
  schema.at_least_one("config.eval", num_tasks=evaluation.num_tasks, num_steps=evaluation.num_steps)
  published = schema.call("config.published", tables["published"], Published) if "published" in tables else None
  return tables, run, evaluation, published._asdict() if published else None


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
  if network.takes_key:
    batch_fns = augment.keyed(inner.batch_fn), augment.keyed_query(inner.query_batch_fn)
    inner = inner._replace(batch_fn=batch_fns[0], query_batch_fn=batch_fns[1])
  inner = norm_stats.in_training(run.train_norm_stats, inner, network, loss_of)
  test = loop if evaluation.prox is None else loop._replace(prox=evaluation.prox)
  test = test._replace(batch_fn=wj.epochs(evaluation.batch_size)) if evaluation.batch_size else test
  return inner, spec.loop(test, network, False)


def _check_choices(tables: Mapping[str, Any], run: Run, evaluation: Evaluation, spec: base.Spec) -> None:
  """Choices that the data, or other settings, do not allow."""
  if spec.own_batches:
    _refuse_batches(tables["data"]["name"], tables["inner"], evaluation)
  norm_stats.check("config.train_norm_stats", run.train_norm_stats, spec.train_norm_stats)
  norm_stats.check("config.eval.norm_stats", evaluation.norm_stats, spec.norm_stats)
  if evaluation.optimizer_state == "trained" and not tables["meta_gradient"].get("carry_optimizer", False):
    raise ValueError("config.eval.optimizer_state must be 'fresh' unless config.meta_gradient.carry_optimizer is True.")
  _check_ensemble(evaluation, run, spec)


def _checked_task(tables: Mapping[str, Any], evaluation: Evaluation, spec: base.Spec, data: base.Data) -> Task:
  """The shapes of a training task, once those of both splits are known to be large enough."""
  train_task, test_task = (jax.eval_shape(lambda d=draw: d(jax.random.key(0))) for draw in (data.train, data.test_task))
  if evaluation.val_tasks < 0 or (evaluation.val_tasks and data.val is None):
    raise ValueError(f"config.eval.val_tasks must be 0{' or more' * bool(data.val)} here; got {evaluation.val_tasks}.")
  if not spec.own_batches:
    in_training = tables["inner"].get("batch_size", 0)
    _check_batch("config.inner.batch_size", in_training, train_task)
    in_test = "config.eval.batch_size (0 for config.inner's)"
    _check_batch(in_test, evaluation.batch_size or in_training, test_task)
  return train_task


def _judged(
  evaluation: Evaluation,
  spec: base.Spec,
  data: base.Data,
  inner: InnerLoop,
  network: networks.Network,
  loss_of: Callable[..., LossFn],
) -> tuple[str, Readout | norm_stats.MakeReadout, dict[str, Readout]]:
  """What the result is under, its readout, and the readouts of the other choices."""
  if evaluation.ensemble:
    loss_of = losses.margins
    inner = inner._replace(query_loss_fn=loss_of(network.apply))
  if not norm_stats.has_norm(network, data.train):
    return norm_stats.NONE, query_loss(inner), {}
  name = evaluation.norm_stats
  names = [choice for choice in spec.norm_stats if choice == name or choice not in spec.costly]
  others = norm_stats.readouts(names, inner, network, loss_of, spec.whole_task)
  if name == "per_step":
    return name, norm_stats.per_step(network, loss_of, evaluation.num_steps), others
  return name, others.pop(name), others


def _refuse_batches(data: str, inner: Mapping[str, Any], evaluation: Evaluation) -> None:
  """A setting that would be ignored is refused."""
  given = {f"inner.{key}": inner.get(key, default) for key, default in (("batch", "full"), ("batch_size", 0))}
  for key, value in {**given, "eval.batch_size": evaluation.batch_size}.items():
    if value not in ("full", 0):
      raise ValueError(
        f"config.{key} has no place with config.data.name {data!r}, which brings its own batches; got {value!r}."
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


def _checked(run: Run) -> Run:
  counts = ("num_meta_steps", "tasks_per_step", "checkpoint_every", "steps_per_dispatch")
  schema.at_least_one("config", **{name: getattr(run, name) for name in counts})
  if run.checkpoint_every % run.steps_per_dispatch:
    raise ValueError(
      f"config.checkpoint_every must be a multiple of steps_per_dispatch, {run.steps_per_dispatch}; "
      f"got {run.checkpoint_every}."
    )
  if run.task_chunk < 0:
    raise ValueError(f"config.task_chunk must be at least 0; got {run.task_chunk}.")
  return run
