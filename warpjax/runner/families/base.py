"""Data of a config's `data` table: checked when the config is read, loaded after all other checks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax import losses, networks, rules, tasks
from warpjax.checks import check_counts
from warpjax.datasets import decode, splits
from warpjax.datasets import omniglot as omniglot_files
from warpjax.runner.components import norm_stats
from warpjax.runner.config.schema import OfProblem, OfTest, OfTraining
from warpjax.tasks import few_shot
from warpjax.tasks.few_shot import Rotations
from warpjax.training.task_batch import as_argument
from warpjax.types import InnerLoop, QueryBatchFn, Task, TaskSampler, UpdateRule


class Data(NamedTuple):
  """The splits, and a description for the result, such as the hash of the class split.

  A sampler is a function `(key) -> Task` that JAX traces. `test` is a sampler, or all test tasks with leaves
  `[n, ...]`, which an evaluation cycles through. `val` likewise has the validation tasks, or is None.
  """

  train: TaskSampler
  test: TaskSampler | Task
  description: dict[str, Any]
  val: TaskSampler | Task | None = None

  def as_arguments(self) -> Data:
    """The same with each sampler as an argument of jitted functions; raises a ValueError for what is no sampler."""
    given = {"train": self.train, "test": self.test, "val": self.val}
    are = {name: of for name, of in given.items() if of is not None and not isinstance(of, Task)}
    samplers: dict[str, Any] = {name: as_argument(sampler, f"Data.{name}") for name, sampler in are.items()}
    return self._replace(**samplers)

  def test_task(self, key: jax.Array) -> Task:
    """One test task."""
    if not isinstance(self.test, Task):
      return self.test(key)
    index = jax.random.randint(key, (), 0, jax.tree.leaves(self.test)[0].shape[0])
    return jax.tree.map(lambda leaf: leaf[index], self.test)


class Spec(NamedTuple):
  """Properties of the data that are known before they are loaded.

  Attributes:
    metric: A key of `registry.LOSSES`.
    num_outputs: Width of the network's head.
    load: Loads the data; raises if they are missing or too small for the tasks.
    norm_stats: The batch statistics that test tasks can be measured with, among `norm_stats.NormStats`.
    costly: The batch statistics that are measured only if the config names them.
    train_norm_stats: The batch statistics for the query loss in training, among `norm_stats.TrainNormStats`.
    whole_task: The test task, for batch statistics of the support set besides the query set.
    loop: `(inner, network, training) -> inner` adapts the inner loop to the tasks: batches, augmentation, losses.
    own_batches: Whether `loop` replaces the batches of the config.
  """

  metric: str
  num_outputs: int
  load: Callable[[], Data]
  norm_stats: tuple[str, ...] = ("transductive",)
  costly: tuple[str, ...] = ()
  train_norm_stats: tuple[str, ...] = ("transductive",)
  whole_task: QueryBatchFn = losses.whole_task
  loop: Callable[[InnerLoop, networks.Network, bool], InnerLoop] = lambda inner, network, training: inner
  own_batches: bool = False


def frozen(rule: UpdateRule) -> UpdateRule:
  """The rule whose updates are zero. Its parameters stay, and are not read."""
  return rule._replace(transform=lambda rule_params: rules.freeze(True).transform(()), finite_at_zero=True)


def sinusoid(
  variant: OfProblem[Literal["maml", "meta_sgd", "reptile"]],
  shots: OfProblem[OfTest[int]],
  queries: OfTest[int],
  train_shots: OfTraining[int] = 0,
  train_queries: OfTraining[int] = 0,
  train_grid: OfTraining[bool] = False,
) -> Spec:
  """Sine regression.

  Args:
    variant: The paper whose distribution of waves is used.
    shots: Support examples of a task.
    queries: Query examples of a test task.
    train_shots: Support examples of a training task; 0 for `shots`.
    train_queries: Query examples of a training task; 0 for `queries`.
    train_grid: Whether training tasks have the query's points as their support set.
  """
  check_counts(shots=shots, queries=queries)
  check_counts(least=0, train_shots=train_shots, train_queries=train_queries)
  if train_grid and train_shots:
    raise ValueError(f"config.data.train_shots must be 0 with train_grid, which trains on the grid; got {train_shots}.")
  train_support = None if train_grid else train_shots or shots
  train = tasks.sinusoid.sampler(variant, shots=train_support, queries=train_queries or queries)
  test = tasks.sinusoid.sampler(variant, shots=shots, queries=queries)
  choices = ("transductive", "support", "running", "per_step")
  # Validation waves differ from test waves by their keys.
  load = lambda: Data(train, test, {}, test)
  return Spec("mse", 1, load, choices, costly=("per_step",), train_norm_stats=("transductive", "support"))


def omniglot(
  data_dir: str | None,
  cache_dir: str | None,
  ways: OfProblem[int],
  shots: OfProblem[OfTest[int]],
  queries: OfTest[int],
  train_shots: OfTraining[int] = 0,
  train_queries: OfTraining[int] = 0,
  train_query: OfTraining[Literal["held_out", "support"]] = "held_out",
  split: OfProblem[Literal["random_characters", "background_evaluation", "folders"]] = "random_characters",
  split_seed: int = 0,
  val_classes: int = 0,
  rotations: OfTraining[Rotations] = "per_class",
  test_rotations: OfProblem[OfTest[Rotations]] = "per_class",
  invert: OfTraining[bool] = True,
  resample: OfTraining[decode.Resample] = "lanczos",
) -> Spec:
  """N-way K-shot Omniglot, 28x28.

  Args:
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.
    ways: Classes of a task.
    shots: Support examples of each class.
    queries: Query examples of each class.
    train_shots: Support examples of each class in training; 0 for `shots`.
    train_queries: Query examples of each class in training; 0 for `queries`.
    train_query: "support" takes the query examples of training from the support set, which may then have all 20
      drawings; for a meta-gradient that does not use them.
    split: The split of characters into training and test.
    split_seed: Seed of a random split.
    val_classes: Training characters held out for validation in a random split, 100 in MAML's released code. The test
      characters do not depend on it.
    rotations: Rotations of training classes by multiples of 90 degrees.
    test_rotations: Rotations of test classes.
    invert: Whether ink is 1 and paper 0.
    resample: The filter that resizes the drawings.
  """
  check_counts(ways=ways, shots=shots, queries=queries)
  check_counts(least=0, train_shots=train_shots, train_queries=train_queries)
  held_out, train_counts = train_query == "held_out", (train_shots or shots, train_queries or queries)
  if not held_out and train_counts[0] <= train_counts[1]:
    raise ValueError(
      "config.data.train_query must be 'held_out' where training has no more shots than queries; "
      f"got 'support' with {train_counts[0]} shots, {train_counts[1]} queries."
    )

  def load() -> Data:
    decoding = {"invert": invert, "resample": resample}
    images, classes, notes = omniglot_parts(data_dir, cache_dir, split, split_seed, val_classes, **decoding)
    drawn = train_counts if held_out else (train_counts[0] - train_counts[1], train_counts[1])
    train = few_shot.sampler(images["train"], ways, *drawn, rotations=rotations)
    # A part with fewer classes than ways is no validation set.
    parts = [part for part in ("val", "test") if part == "test" or len(images[part]) >= ways]
    apart = {part: few_shot.sampler(images[part], ways, shots, queries, rotations=test_rotations) for part in parts}
    counts = {f"{part}_classes": len(images[part]) for part in ("train", *parts)}
    description = {"split": split, "split_sha256": classes.digest, **counts, "notes": notes}
    return Data(
      train if held_out else jax.tree_util.Partial(_seen, train), apart["test"], description, apart.get("val")
    )

  return Spec("accuracy", ways, load, norm_stats.ALL, costly(ways * queries), train_norm_stats=norm_stats.IN_TRAINING)


def _seen(sampler: TaskSampler, key: jax.Array) -> Task:
  """A task whose query examples are in its support set too."""
  support, query = sampler(key)
  return Task(jax.tree.map(lambda *sets: jnp.concatenate(sets), support, query), query)


def tell(notes: Iterable[str]) -> None:
  """Prints notes on the data files."""
  for note in notes:
    print(f"Of the data: {note}.", file=sys.stderr, flush=True)


PARTS = ("train", "val", "test")
_TRAIN_CHARACTERS = 1200  # as in MAML, Reptile and iMAML
FEW_QUERIES = 25


def costly(queries: int, few: int = FEW_QUERIES) -> tuple[str, ...]:
  """The choices of `norm_stats.ALL` that are measured only if named, for tasks with that many query examples."""
  # "support_plus_one" passes the whole support set through the network for each query example.
  return ("per_step",) if queries <= few else ("support_plus_one", "per_step")


def omniglot_parts(
  data_dir: str | None, cache_dir: str | None, split: str, split_seed: int, val_classes: int = 0, **decoding: Any
) -> tuple[dict[str, np.ndarray], splits.Split, list[str]]:
  """The images of each part, the split, and the files' notes; `decoding` as for `tasks.omniglot.load`."""
  files = omniglot_files.load(data_dir, cache_dir, **decoding)
  tell(files.notes)
  classes = _split(files, split, split_seed, val_classes)
  rows = {part: splits.indices(files.names, getattr(classes, part)) for part in PARTS}
  return {part: np.asarray(files.images[index]) for part, index in rows.items()}, classes, list(files.notes)


def _split(files: omniglot_files.Omniglot, name: str, seed: int, val_classes: int) -> splits.Split:
  """The split of that name; "folders" is the split of a data folder `{train,val,test}/<class>/*`, and only for one."""
  if (name == "folders") != (files.split is not None):
    raise ValueError(
      "config.data.split must be 'folders' for a data folder {train,val,test}/<class>/*, and only for one; "
      f"got {name!r} for data that come {'in such a folder' if files.split else 'otherwise'}."
    )
  if seed and name != "random_characters":
    raise ValueError(f"config.data.split_seed must be 0 for {name}, which is not random; got {seed}.")
  most = _TRAIN_CHARACTERS - 1 if name == "random_characters" else 0
  if not 0 <= val_classes <= most:
    allowed = f"0 to {most}" if most else "0"
    raise ValueError(f"config.data.val_classes must be {allowed} for {name}; got {val_classes}.")
  if files.split is not None:
    return files.split
  if name == "background_evaluation":
    return splits.background_evaluation(files.names)
  num_train = _TRAIN_CHARACTERS - val_classes
  return splits.random_characters(files.names, num_train=num_train, num_val=val_classes, seed=seed)
