"""Multi-shot Omniglot: alphabets as tasks, augmented drawings, and the multi-headed baseline."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

import warpjax as wj
from warpjax import networks
from warpjax.checks import check_counts
from warpjax.datasets import decode, splits
from warpjax.datasets import omniglot as omniglot_files
from warpjax.problem import Problem
from warpjax.runner.components import norm_stats, outer_step
from warpjax.runner.config.schema import OfProblem, OfTraining
from warpjax.runner.families.base import Data, Spec, tell
from warpjax.tasks import augment, few_shot, multi_shot
from warpjax.types import Aux, Batch, InnerLoop, LossFn, MetaParams, Params, PyTree, QueryBatchFn, Task, TaskSampler

ALPHABETS = 25  # alphabets of meta-training, each with a head in joint training

_TRANSFORMS: dict[str, augment.ImageTransform] = {
  "affine": augment.random_affine(),
  "affine_nearest": augment.random_affine(interpolation="nearest"),
  "none": lambda key, images: few_shot.to_unit(images),
}


def omniglot(
  data_dir: str | None,
  cache_dir: str | None,
  alphabets: OfProblem[int] = ALPHABETS,
  ways: OfProblem[int] = 20,
  held_out: OfProblem[int] = 5,
  batch_size: int = 20,
  augmentation: OfTraining[Literal["affine", "affine_nearest", "none"]] = "affine",
  query: OfTraining[Literal["support", "held_out"]] = "support",
  split_seed: int = 0,
  numbered: OfTraining[bool] = False,
  resample: OfTraining[decode.Resample] = "lanczos",
) -> Spec:
  """Multi-shot Omniglot: each alphabet is a task.

  Args:
    data_dir: Folder of prepared data.
    cache_dir: Folder for arrays made from them.
    alphabets: Alphabets of meta-training; the others are test tasks.
    ways: Characters of a task.
    held_out: Drawings of each character in the query set.
    batch_size: Examples of an inner step.
    augmentation: Random transforms of the drawings.
    query: The examples of the meta-loss in training: a minibatch of the "support" set, or all "held_out" drawings.
    split_seed: Seed of the split into alphabets.
    numbered: Whether labels count the characters of all alphabets, as `multi_head` needs.
    resample: The filter that resizes the drawings.
  """
  check_counts(alphabets=alphabets, ways=ways, held_out=held_out, batch_size=batch_size)
  transform = _TRANSFORMS[augmentation]

  def loop(inner: InnerLoop, network: networks.Network, training: bool) -> InnerLoop:
    query_fn = _query_minibatch(batch_size) if training and query == "support" else wj.full_query
    return inner._replace(
      loss_fn=_modulo(inner.loss_fn, ways) if numbered else inner.loss_fn,
      batch_fn=augment.augmented(wj.minibatch(batch_size), transform),
      query_batch_fn=augment.augmented_query(query_fn, transform),
    )

  def load() -> Data:
    files = omniglot_files.load(data_dir, cache_dir, invert=False, resample=resample)
    tell(files.notes)
    split = splits.multi_shot_alphabets(files.names, num_pretrain=alphabets, min_characters=ways, seed=split_seed)
    images = lambda part: multi_shot.alphabet_images(files.images, files.names, part, ways=ways, seed=split_seed)
    train = multi_shot.sampler(images(split.train), held_out=held_out, query=query)
    train = jax.tree_util.Partial(_numbered, train, jnp.int32(alphabets), jnp.int32(ways)) if numbered else train
    test = multi_shot.all_tasks(images(split.test), held_out=held_out)
    description = {"split": "alphabets", "split_sha256": split.digest, "alphabets": alphabets}
    return Data(train, test, {**description, "notes": list(files.notes)})

  return Spec(
    "accuracy",
    ways,
    load,
    norm_stats=norm_stats.ALL,
    costly=("support_plus_one", "per_step"),
    train_norm_stats=("transductive",) if numbered else norm_stats.IN_TRAINING,
    whole_task=_augmented_task(transform),
    loop=loop,
    own_batches=True,
  )


def _augmented_task(transform: augment.ImageTransform) -> QueryBatchFn:
  """The whole test task, with separately transformed sets; the query set as in the query batch function."""
  support_fn = augment.augmented_query(lambda key, task, params, shared: task.support, transform)
  query_fn = augment.augmented_query(wj.full_query, transform)

  def batch(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Task:
    return Task(support_fn(jax.random.fold_in(key, 0), task, params, shared), query_fn(key, task, params, shared))

  return batch


def _query_minibatch(size: int) -> Any:
  def batch(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Batch:
    return wj.minibatch(size)(key, task.query, jnp.int32(0), params, shared)

  return batch


def multi_headed(
  num_outputs: int, alphabets: int = ALPHABETS, width: int = 0, bias_init: Literal["zeros"] | None = None
) -> networks.Network:
  """The network with a head for each meta-training alphabet in `shared`; a test task gets an untrained one.

  Args:
    num_outputs: Width of a head.
    alphabets: Number of heads.
    width: Filters of each layer; 0 for the network's default.
    bias_init: "zeros" for the biases of all layers.
  """
  overrides = {**({"width": width} if width else {}), **({"bias_init": None} if bias_init == "zeros" else {})}
  network = networks.from_linen(networks.warpgrad_omniglot(num_outputs, **overrides))

  def init(key: jax.Array, x: jax.Array) -> tuple[Params, PyTree]:
    params, _ = network.init(key, x)
    heads = jax.vmap(lambda i: network.init(jax.random.fold_in(key, i), x)[0]["head"])(jnp.arange(alphabets))
    return params, {"heads": heads}

  assert network.apply_with_stats is not None  # from_linen gives one
  with_stats = network.apply_with_stats
  return networks.Network(
    init,
    lambda params, shared, x: network.apply(params, (), x),
    lambda params, shared, stats, x: with_stats(params, (), stats, x),
  )


def multi_head(inner: InnerLoop) -> Any:
  """Joint training without adaptation: the gradient of one batch with respect to the body and the alphabet's head."""

  def grad_fn(meta_params: MetaParams, task: Task, key: jax.Array) -> tuple[tuple[jax.Array, Aux], MetaParams]:
    batch = Problem(inner, meta_params, task, key).batch(meta_params.initial, 0)
    heads = meta_params.shared["heads"]
    alphabet = batch[1][0] // heads["bias"].shape[-1]

    def loss(initial: Params, heads: PyTree) -> tuple[jax.Array, Aux]:
      head = jax.tree.map(lambda leaf: leaf[alphabet], heads)
      return inner.loss_fn({**initial, "head": head}, (), batch)

    value, (initial, shared) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(meta_params.initial, heads)
    return value, MetaParams(initial, {"heads": shared}, jax.tree.map(jnp.zeros_like, meta_params.rule))

  return outer_step.of(grad_fn, _check_heads)


def _check_heads(tables: outer_step.Tables, tasks_per_step: int) -> None:
  del tasks_per_step
  heads, alphabets = (tables[table].get("alphabets", ALPHABETS) for table in ("network", "data"))
  if alphabets > heads:
    raise ValueError(f"config.data.alphabets must be at most the heads, network.alphabets, {heads}; got {alphabets}.")


def _modulo(loss_fn: LossFn, ways: int) -> LossFn:
  return lambda params, shared, batch: loss_fn(params, shared, (batch[0], batch[1] % ways))


def _numbered(sampler: TaskSampler, alphabets: jax.Array, ways: jax.Array, key: jax.Array) -> Task:
  """A task of `sampler`, whose labels count the characters of all alphabets."""
  first = ways * jax.random.randint(key, (), 0, alphabets)
  (x, y), (query_x, query_y) = sampler(key)
  return Task((x, y + first), (query_x, query_y + first))
