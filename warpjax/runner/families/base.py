"""The task families of the experiments: what a config's `data` table names, cheap to check and loaded last."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from warpjax import losses, networks, tasks
from warpjax.datasets import decode, splits
from warpjax.datasets import omniglot as omniglot_files
from warpjax.runner.components import norm_stats
from warpjax.runner.config import schema
from warpjax.runner.config.schema import OfProblem, OfTest, OfTraining
from warpjax.tasks import few_shot
from warpjax.tasks.few_shot import Rotations
from warpjax.types import InnerLoop, QueryBatchFn, Task, TaskSampler


class Data(NamedTuple):
  """The two splits, and what the result says of the data (the hash of the class split).

  `test` is a sampler, or all test tasks, leaves `[n, ...]`, which an evaluation takes in turn; so is `val`, by which
  a checkpoint can be chosen, None where there is none.
  """

  train: TaskSampler
  test: TaskSampler | Task
  description: dict[str, Any]
  val: TaskSampler | Task | None = None

  def test_task(self, key: jax.Array) -> Task:
    """One test task."""
    if not isinstance(self.test, Task):
      return self.test(key)
    index = jax.random.randint(key, (), 0, jax.tree.leaves(self.test)[0].shape[0])
    return jax.tree.map(lambda leaf: leaf[index], self.test)


class Spec(NamedTuple):
  """What is known of the data before it is read.

  Attributes:
    metric: A key of `registry.LOSSES`.
    num_outputs: Width of the network's head.
    load: Reads the data; fails at once where it is not there, or too small for the tasks.
    norm_stats: Choices of batch statistics under which test tasks can be judged, of `norm_stats.NormStats`.
    costly: Those of them that are computed only when named.
    train_norm_stats: Choices for the query loss in training, of `norm_stats.TrainNormStats`.
    whole_task: The test task, for those choices that see the support set besides the query set.
    loop: `(inner, network, training) -> inner`, what the tasks ask of the inner loop: batches, augmentation, losses.
    own_batches: Whether `loop` puts batches of its own in the place of those that the config can ask for.
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


def sinusoid(
  variant: OfProblem[Literal["maml", "meta_sgd", "reptile"]],
  shots: OfProblem[OfTest[int]],
  queries: OfTest[int],
  train_shots: OfTraining[int] = 0,
  train_queries: OfTraining[int] = 0,
  train_grid: OfTraining[bool] = False,
) -> Spec:
  """Sine regression; a `train_` count of 0 is the test's, `train_grid` trains on the query's own points."""
  if train_grid and train_shots:
    raise ValueError(f"config.data.train_shots must be 0 with train_grid, which trains on the grid; got {train_shots}.")
  train_support = None if train_grid else train_shots or shots
  train = tasks.sinusoid.sampler(variant, shots=train_support, queries=train_queries or queries)
  test = tasks.sinusoid.sampler(variant, shots=shots, queries=queries)
  choices = ("transductive", "support", "running", "per_step")
  # Waves are drawn anew, so that validation waves are apart from test waves by their keys.
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
  """N-way K-shot Omniglot, 28x28; a `train_` count of 0 is the test's. `queries` are for each class.

  `val_classes` training characters are held out for validation where they are drawn at random, 100 in MAML's released
  code. The test characters do not depend on it.

  `train_query` "support" takes the query examples of training from the support set, so that all 20 drawings may be in
  it, for a meta-gradient that makes no use of them.
  """
  schema.at_least_one("config.data", ways=ways, shots=shots, queries=queries)
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
    # A part that cannot fill the ways is no validation set.
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
  """Prints what a reader should know of the files."""
  for note in notes:
    print(f"Of the data: {note}.", file=sys.stderr, flush=True)


PARTS = ("train", "val", "test")
_TRAIN_CHARACTERS = 1200  # of MAML, Reptile and iMAML
FEW_QUERIES = 25


def costly(queries: int, few: int = FEW_QUERIES) -> tuple[str, ...]:
  """The choices of `norm_stats.ALL` that are computed only when named, for tasks of that many query examples."""
  # One at a time, each query example is a pass of the whole support set: of 20 ways and 5 shots longer than training.
  return ("per_step",) if queries <= few else ("support_plus_one", "per_step")


def omniglot_parts(
  data_dir: str | None, cache_dir: str | None, split: str, split_seed: int, val_classes: int = 0, **decoding: Any
) -> tuple[dict[str, np.ndarray], splits.Split, list[str]]:
  """The images of each part, the split, and the files' notes; `decoding` as for `tasks.omniglot.load`."""
  found = omniglot_files.load(data_dir, cache_dir, **decoding)
  tell(found.notes)
  classes = _split(found, split, split_seed, val_classes)
  rows = {part: splits.indices(found.names, getattr(classes, part)) for part in PARTS}
  return {part: np.asarray(found.images[index]) for part, index in rows.items()}, classes, list(found.notes)


def _split(found: omniglot_files.Omniglot, name: str, seed: int, val_classes: int) -> splits.Split:
  """A data folder that comes split, `{train,val,test}/<class>/*`, keeps its own split, and nothing else has one."""
  if (name == "folders") != (found.split is not None):
    raise ValueError(
      "config.data.split must be 'folders' for a data folder {train,val,test}/<class>/*, and only for one; "
      f"got {name!r} for data that come {'in such a folder' if found.split else 'otherwise'}."
    )
  most = _TRAIN_CHARACTERS - 1 if name == "random_characters" else 0
  if not 0 <= val_classes <= most:
    raise ValueError(f"config.data.val_classes must be 0{f' to {most}' * bool(most)} for {name}; got {val_classes}.")
  if found.split is not None:
    return found.split
  if name == "background_evaluation":
    return splits.background_evaluation(found.names)
  num_train = _TRAIN_CHARACTERS - val_classes
  return splits.random_characters(found.names, num_train=num_train, num_val=val_classes, seed=seed)
