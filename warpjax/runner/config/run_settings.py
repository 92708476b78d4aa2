"""The settings of a config that name no function: those of the run, of the test, and the published number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from warpjax.checks import check_count
from warpjax.runner.components import norm_stats
from warpjax.runner.config import schema

TABLES = ("data", "network", "inner", "meta_gradient", "optimizer", "eval", "published")


class Run(NamedTuple):
  """The settings that belong to no table.

  Attributes:
    experiment: Name of the config file.
    method: Its row.
    seed: Seed of parameters, rule parameters and training tasks.
    num_meta_steps: Number of meta-steps, the outer updates.
    tasks_per_step: Tasks in each meta-step, over all devices.
    checkpoint_every: Meta-steps between checkpoints, a multiple of `steps_per_dispatch`.
    steps_per_dispatch: Meta-steps in one call to the device.
    task_chunk: Vmapped tasks; further tasks follow in a loop. 0 chooses the number.
    train_norm_stats: Batch statistics of the query loss in training; unused by a meta-gradient without a query loss.
    loss: `module:function` of a loss, `(apply) -> loss`, which replaces the loss of the data's metric.
    cpu_devices: The devices that a CPU is made into; by default one for each core where that was measured to be faster.
    modules: The folder and SHA-256 of each module that the config names as `module:function`; written by the runner.
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
  cpu_devices: int | None = None
  modules: dict | None = None

  @property
  def name(self) -> str:
    """The name of the row, as `--config` takes it."""
    return f"{self.experiment}:{self.method}"


class Evaluation(NamedTuple):
  """How the result is measured on tasks of the test split.

  Attributes:
    num_tasks: Number of test tasks.
    num_steps: Inner steps on a test task.
    seed: Seed of the test tasks; the same for every method, so that results are paired.
    batch_size: Examples in an inner step; 0 for the value of training.
    prox: Weight of the proximal term; None for the value of training.
    norm_stats: Batch statistics that normalise query examples; ignored by a network without batch norm.
    val_tasks: Validation tasks at each checkpoint, whose mean selects the checkpoint of the result; 0 takes the last
      checkpoint. Test tasks never select.
    ensemble: Number of checkpoints, the best on validation tasks, whose class probabilities are averaged; 0 for no
      ensemble.
    optimizer_state: Whether a test task starts from a "fresh" state of the inner optimizer, or from the "trained" state
      of a meta-gradient with `carry_optimizer`.
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
  """The paper's number for this row; an `interval` of 0 means that the paper gives none."""

  number: float
  interval: float
  source: str


def check_tables(config: Mapping[str, Any]) -> None:
  """Raises a ValueError for a table that is missing or no table."""
  missing = [name for name in TABLES[:-1] if name not in config]
  if missing:
    raise ValueError(
      f"config must have the tables {', '.join(TABLES[:-1])}; it lacks {', '.join(missing)}. A recipe with BASE has "
      "those of another row."
    )
  for name in TABLES[:-1]:
    if not isinstance(config[name], Mapping):
      raise ValueError(f"config.{name} must be a table; got {config[name]!r}.")


def parsed(config: Mapping[str, Any]) -> tuple[Run, Evaluation, Published | None]:
  """Parses the settings of the run and of the test, and the published number, of a config with all tables.

  Raises:
    ValueError: For a setting that is unknown, missing, of the wrong type or out of range.
  """
  own = {key: value for key, value in config.items() if key not in TABLES}
  run = _checked(schema.call("config", own, Run, also=TABLES))
  evaluation = schema.call("config.eval", config["eval"], Evaluation)
  for name, least in (("num_tasks", 1), ("num_steps", 1), ("batch_size", 0)):
    check_count(f"config.eval.{name}", getattr(evaluation, name), least=least)
  published = schema.call("config.published", config["published"], Published) if "published" in config else None
  return run, evaluation, published


def _checked(run: Run) -> Run:
  for name in ("num_meta_steps", "tasks_per_step", "checkpoint_every", "steps_per_dispatch"):
    check_count(f"config.{name}", getattr(run, name))
  if run.checkpoint_every % run.steps_per_dispatch:
    raise ValueError(
      f"config.checkpoint_every must be a multiple of steps_per_dispatch, {run.steps_per_dispatch}; "
      f"got {run.checkpoint_every}."
    )
  check_count("config.task_chunk", run.task_chunk, least=0)
  return run
