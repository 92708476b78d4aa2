"""Few-shot tasks of colour images: mini-ImageNet, tiered-ImageNet, CIFAR-FS and FC100."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax

from warpjax.checks import check_counts
from warpjax.datasets import cifar, decode, image_sets, mini_imagenet, tiered_imagenet
from warpjax.runner.components import norm_stats
from warpjax.runner.config.schema import OfProblem, OfTest, OfTraining
from warpjax.runner.families.base import Data, Spec, costly, tell
from warpjax.tasks import augment, few_shot
from warpjax.tasks.few_shot import Rotations
from warpjax.types import InnerLoop, Params, PyTree, QueryBatchFn, Task, full_query

Load = Callable[..., image_sets.ImageSet]
Augmentation = Literal["crop", "flip", "colour", "rotation"]
TRANSFORMS: dict[str, Callable[[int], augment.ImageTransform]] = {
  "crop": lambda size: augment.random_crop(size // 10),
  "flip": lambda size: augment.random_flip(),
  "colour": lambda size: augment.random_colour(),
  "rotation": lambda size: augment.random_rotation(),
}


def image_set(load: Load, size: int) -> Callable[..., Spec]:
  """Makes the data function of an image set, whose images have `size` pixels by default."""

  def spec(
    data_dir: str | None,
    cache_dir: str | None,
    ways: OfProblem[int],
    shots: OfProblem[OfTest[int]],
    queries: OfTest[int],
    train_shots: OfTraining[int] = 0,
    train_queries: OfTraining[int] = 0,
    rotations: OfTraining[Rotations] = "none",
    test_rotations: OfProblem[OfTest[Rotations]] = "none",
    augmentation: OfTraining[Sequence[Augmentation]] = (),
    size: OfProblem[int] = size,
    resample: OfTraining[decode.Resample] = "lanczos",
    require_complete: OfTraining[bool] = False,
    placement: OfTraining[Literal["auto", "device", "host"]] = "auto",
  ) -> Spec:
    """N-way K-shot tasks of colour images.

    Args:
      data_dir: Folder of prepared data.
      cache_dir: Folder for arrays made from them.
      ways: Classes of a task.
      shots: Support examples of each class.
      queries: Query examples of each class.
      train_shots: Support examples of each class in training; 0 for `shots`.
      train_queries: Query examples of each class in training; 0 for `queries`.
      rotations: Rotations of training classes by multiples of 90 degrees.
      test_rotations: Rotations of test classes.
      augmentation: Random transforms of training images.
      size: Height and width of the images.
      resample: The filter that resizes the images.
      require_complete: Whether to refuse a data set with missing images.
      placement: Where the images are stored; "auto" takes the device if they fill at most half of its memory.
    """
    check_counts(ways=ways, shots=shots, queries=queries, size=size)
    check_counts(least=0, train_shots=train_shots, train_queries=train_queries)
    train_counts = (train_shots or shots, train_queries or queries)

    def read() -> Data:
      images = load(data_dir, cache_dir, size=size, resample=resample, require_complete=require_complete)
      if images.partial:
        print(f"The data set is incomplete; it lacks {images.missing}.", file=sys.stderr, flush=True)
      tell(images.notes)
      on_device = _on_device(images, placement)
      make = lambda part, counts, turned: few_shot.sampler(
        getattr(images, part),
        ways,
        *counts,
        rotations=turned,
        # Tasks stay uint8, a quarter of the memory; batches become [0, 1].
        preprocess=lambda batch: batch,
        counts=images.counts[image_sets.PARTS.index(part)],
        on_device=on_device,
      )
      held_out = {part: make(part, (shots, queries), test_rotations) for part in ("val", "test")}
      return Data(make("train", train_counts, rotations), held_out["test"], _description(images), held_out["val"])

    train_transform = augment.compose(*(TRANSFORMS[name](size) for name in augmentation), _unit)
    return Spec(
      "accuracy",
      ways,
      read,
      norm_stats=norm_stats.ALL,
      costly=costly(ways * queries, few=10),  # images have up to nine times the size of Omniglot's
      train_norm_stats=norm_stats.IN_TRAINING,
      whole_task=_unit_task,
      loop=lambda inner, network, training: _loop(inner, train_transform if training else _unit),
    )

  return spec


def _unit(key: jax.Array, images: jax.Array) -> jax.Array:
  del key
  return few_shot.as_in_batches(images)


def _loop(inner: InnerLoop, transform: augment.ImageTransform) -> InnerLoop:
  return inner._replace(
    batch_fn=augment.augmented(inner.batch_fn, transform),
    query_batch_fn=augment.augmented_query(inner.query_batch_fn, transform),
  )


def _unit_task(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Task:
  support: QueryBatchFn = lambda key, task, params, shared: task.support
  return Task(*(augment.augmented_query(part, _unit)(key, task, params, shared) for part in (support, full_query)))


def _on_device(images: image_sets.ImageSet, placement: str) -> bool:
  if placement != "auto":
    return placement == "device"
  return sum(array.nbytes for array in images[:3]) <= _device_bytes() / 2


def _device_bytes() -> float:
  """Memory of a device, or of this machine if the device is its CPU."""
  limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
  return float(limit or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _description(images: image_sets.ImageSet) -> dict[str, Any]:
  """The description of the data in a result."""
  classes = {f"{part}_classes": len(getattr(images.split, part)) for part in image_sets.PARTS}
  counts = {f"{part}_images": sum(n) for part, n in zip(image_sets.PARTS, images.counts, strict=True)}
  partial = {"partial": True, "missing": images.missing} if images.partial else {"partial": False}
  digest = {"split": "published", "split_sha256": images.digest}
  return {**digest, **partial, **classes, **counts, "notes": list(images.notes)}


def _cifar(name: Literal["cifar_fs", "fc100"]) -> Load:
  def load(
    data_dir: str | None, cache_dir: str | None, *, size: int, resample: str, require_complete: bool
  ) -> image_sets.ImageSet:
    if resample != "lanczos":
      raise ValueError(f"config.data.resample must be 'lanczos' for {name}, which is not resized; got {resample!r}.")
    if size != 32:
      raise ValueError(f"config.data.size must be 32 for {name}; got {size}.")
    return cifar.load(name, data_dir, cache_dir, require_complete=require_complete)

  return load


SETS: dict[str, Callable[..., Spec]] = {
  "mini_imagenet": image_set(mini_imagenet.load, 84),
  "tiered_imagenet": image_set(tiered_imagenet.load, 84),
  "cifar_fs": image_set(_cifar("cifar_fs"), 32),
  "fc100": image_set(_cifar("fc100"), 32),
}
