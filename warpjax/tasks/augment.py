"""Random transforms of images on the device, inside `jit`, and batch functions that use them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from warpjax.checks import check_choice
from warpjax.padding import map_inputs
from warpjax.problem import with_step
from warpjax.tasks import few_shot
from warpjax.types import Batch, BatchFn, Params, PyTree, QueryBatchFn, Task

ImageTransform = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, images [n, height, width, channels]) -> images`."""

Interpolation = Literal["bilinear", "nearest"]

# Random streams that differ from the one that chooses the batch.
_STREAM, _DROP_STREAM = 0xAF1E, 0xD409


def random_affine(
  *,
  degrees: tuple[float, float] = (0.0, 360.0),
  translate: float = 0.2,
  scale: tuple[float, float] = (0.8, 1.2),
  fill: float = 0.0,
  interpolation: Interpolation = "bilinear",
) -> ImageTransform:
  """Every image turned, scaled about its centre and shifted by its own random amounts.

  Args:
    degrees: Bounds of the angle, counter-clockwise.
    translate: Largest shift, as a fraction of height and of width.
    scale: Bounds of the magnification.
    fill: Value outside the image.
    interpolation: "bilinear", or "nearest", which shifts by whole pixels, as torchvision's transform of that name does.

  Returns:
    `(key, images) -> images` over `[n, height, width, channels]`; uint8 images become [0, 1] first.

  Raises:
    ValueError: for bounds in the wrong order, a translate outside [0, 1], a scale that is not positive, or another
      interpolation.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> random_affine()(jax.random.key(0), jnp.ones((3, 28, 28, 1))).shape
    (3, 28, 28, 1)

  Reference:
    Flennerhag et al. 2020 (WarpGrad), arXiv 1909.00025: the multi-shot Omniglot experiment's augmentation.
  """
  for name, (low, high) in (("degrees", degrees), ("scale", scale)):
    if low > high:
      raise ValueError(f"{name} must be increasing bounds (low, high); got {(low, high)}")
  if not 0 <= translate <= 1:
    raise ValueError(f"translate must be a fraction of the image, 0 to 1; got {translate}")
  if scale[0] <= 0:
    raise ValueError(f"scale must be positive; got {scale}")
  check_choice("interpolation", interpolation, Interpolation)
  lows, highs = np.array([np.radians(degrees), scale, *2 * [(-translate, translate)]]).T

  def transform(key: jax.Array, images: jax.Array) -> jax.Array:
    images = jnp.asarray(few_shot.as_in_batches(images))
    numbers = jax.random.uniform(key, (images.shape[0], 4), images.dtype, lows, highs)
    shift = numbers[:, 2:] * jnp.asarray(images.shape[1:3])
    shift = jnp.round(shift) if interpolation == "nearest" else shift
    one = functools.partial(affine, fill=fill, interpolation=interpolation)
    return jax.vmap(one)(images, numbers[:, 0], numbers[:, 1], shift)

  return transform


def random_crop(padding: int = 8) -> ImageTransform:
  """Pads every image with zeros, and crops it at random to its own size: a shift by up to `padding` pixels each way.

  Args:
    padding: Pixels on each side.

  Returns:
    `(key, images) -> images` over `[n, height, width, channels]`.

  Raises:
    ValueError: for a negative padding.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> random_crop(4)(jax.random.key(0), jnp.ones((3, 32, 32, 3))).shape
    (3, 32, 32, 3)
  """
  if padding < 0:
    raise ValueError(f"padding must be at least 0; got {padding}")

  def transform(key: jax.Array, images: jax.Array) -> jax.Array:
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    one = lambda image, at: jax.lax.dynamic_slice(image, (*at, jnp.int32(0)), images.shape[1:])
    return jax.vmap(one)(padded, offsets.astype(jnp.int32))

  return transform


def random_flip() -> ImageTransform:
  """Mirrors every image left to right with probability 1/2.

  Returns:
    `(key, images [n, height, width, channels]) -> images` of the same shape and dtype.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> random_flip()(jax.random.key(0), jnp.ones((3, 4, 4, 1))).shape
    (3, 4, 4, 1)
  """

  def transform(key: jax.Array, images: jax.Array) -> jax.Array:
    flips = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(flips, images[:, :, ::-1], images)

  return transform


def random_colour(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> ImageTransform:
  """Every image's brightness, contrast and saturation scaled by its own factors, in this order, and cut to [0, 1].

  A factor is uniform on `[1 - b, 1 + b]`. Brightness scales towards black, contrast towards the image's mean grey,
  saturation towards each pixel's grey.

  Args:
    brightness: Bound b of the factor.
    contrast: Likewise.
    saturation: Likewise.

  Returns:
    `(key, images) -> images` over `[n, height, width, 3]`; uint8 images become [0, 1] first.

  Raises:
    ValueError: for a bound outside [0, 1].
  """
  bounds = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
  for name, bound in bounds.items():
    if not 0 <= bound <= 1:
      raise ValueError(f"{name} must be 0 to 1; got {bound}")

  def transform(key: jax.Array, images: jax.Array) -> jax.Array:
    images = jnp.asarray(few_shot.as_in_batches(images))
    spread = jnp.asarray(list(bounds.values()), images.dtype)
    factors = 1 + spread * jax.random.uniform(key, (images.shape[0], 1, 1, 3), images.dtype, -1.0, 1.0)
    images = jnp.clip(images * factors[..., 0:1], 0, 1)
    mean = jnp.mean(_grey(images), axis=(1, 2), keepdims=True)
    images = jnp.clip(mean + factors[..., 1:2] * (images - mean), 0, 1)
    grey = _grey(images)
    return jnp.clip(grey + factors[..., 2:3] * (images - grey), 0, 1)

  return transform


def random_rotation(degrees: float = 15.0) -> ImageTransform:
  """Rotates every image by an angle that is uniform within `degrees` each way; pixels from outside are zero.

  Args:
    degrees: The largest angle.

  Returns:
    `(key, images [n, height, width, channels]) -> images` of the same shape, as `random_affine` makes it.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> random_rotation(10.0)(jax.random.key(0), jnp.ones((3, 4, 4, 1))).shape
    (3, 4, 4, 1)
  """
  return random_affine(degrees=(-degrees, degrees), translate=0.0, scale=(1.0, 1.0))


def compose(*transforms: ImageTransform) -> ImageTransform:
  """One transform after the other, each with a key of its own.

  Args:
    *transforms: Functions `(key, images) -> images`.

  Returns:
    One such function.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> compose(random_crop(1), random_flip())(jax.random.key(0), jnp.ones((3, 4, 4, 1))).shape
    (3, 4, 4, 1)
  """

  def transform(key: jax.Array, images: jax.Array) -> jax.Array:
    for i, each in enumerate(transforms):
      images = each(jax.random.fold_in(key, i), images)
    return images

  return transform


def _grey(images: jax.Array) -> jax.Array:
  """Luma of `[..., 3]` colours, ITU-R 601, `[..., 1]`."""
  return images @ jnp.asarray([[0.299], [0.587], [0.114]], images.dtype)


def affine(
  image: jax.Array,
  angle: jax.Array,
  scale: jax.Array,
  shift: jax.Array,
  fill: float = 0.0,
  interpolation: Interpolation = "bilinear",
) -> jax.Array:
  """One image `[height, width, channels]` turned by `angle` (radians, counter-clockwise), magnified, then shifted.

  Args:
    image: Floating-point.
    angle: Scalar.
    scale: Scalar, above 1 enlarges.
    shift: `[2]`: pixels down, pixels right.
    fill: Value outside the image.
    interpolation: Between pixels.

  Returns:
    The image of the same shape.
  """
  height, width = image.shape[:2]
  row = (jnp.arange(height) - (height - 1) / 2 - shift[0])[:, None]
  column = (jnp.arange(width) - (width - 1) / 2 - shift[1])[None, :]
  cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
  # The coordinates in the old image of each new pixel; rows grow downwards.
  source = [
    cosine * row + sine * column + (height - 1) / 2,
    cosine * column - sine * row + (width - 1) / 2,
  ]
  channel = lambda plane: map_coordinates(plane, source, int(interpolation == "bilinear"), mode="constant", cval=fill)
  return jax.vmap(channel, in_axes=2, out_axes=2)(image)


def augmented(batch_fn: BatchFn, transform: ImageTransform) -> BatchFn:
  """`batch_fn` with its images transformed, anew at every inner step. Batches are `(images, labels)`.

  Args:
    batch_fn: Makes batches `(images [n, height, width, channels], labels)`.
    transform: For example `random_flip()`.

  Returns:
    A `BatchFn`, its batches likewise.

  Example:
    >>> from warpjax import full_batch
    >>> support = jnp.ones((3, 8, 8, 1)), jnp.arange(3)
    >>> images, labels = augmented(full_batch, random_flip())(jax.random.key(0), support, 0, (), ())
    >>> images.shape, labels.tolist()
    ((3, 8, 8, 1), [0, 1, 2])
  """

  def augmented_batch(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    batch = batch_fn(key, support, step, params, shared)
    return map_inputs(partial(transform, jax.random.fold_in(jax.random.fold_in(key, _STREAM), step)), batch)

  return augmented_batch


def keyed(batch_fn: BatchFn) -> BatchFn:
  """`batch_fn` with key data, `((images, key data), labels)`, anew at every step: for dropout.

  Args:
    batch_fn: Makes batches `(images, labels)`.

  Returns:
    A `BatchFn`; key data are those of `jax.random.key_data`, `[2]` for a key of the default kind.

  Example:
    >>> from warpjax import full_batch
    >>> support = jnp.ones((3, 8, 8, 1)), jnp.arange(3)
    >>> (images, data), labels = keyed(full_batch)(jax.random.key(0), support, 0, (), ())
    >>> images.shape, data.shape
    ((3, 8, 8, 1), (2,))
  """

  def keyed_batch(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    data = jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, _DROP_STREAM), step))
    return map_inputs(lambda images: (images, data), batch_fn(key, support, step, params, shared))

  return keyed_batch


def keyed_query(query_batch_fn: QueryBatchFn) -> QueryBatchFn:
  """`query_batch_fn` with key data, `((images, key data), labels)`.

  Args:
    query_batch_fn: Makes batches `(images, labels)`.

  Returns:
    A `QueryBatchFn`; its batches are `((images, key data), labels)`, as those of `keyed`.

  Example:
    >>> from warpjax import full_query
    >>> task = Task((), (jnp.ones((3, 8, 8, 1)), jnp.arange(3)))
    >>> (images, data), labels = keyed_query(full_query)(jax.random.key(0), task, (), ())
    >>> images.shape, data.shape
    ((3, 8, 8, 1), (2,))
  """

  def keyed_batch(key: jax.Array, task: Task, params: Params, shared: PyTree, step: Any = 0) -> Batch:
    data = jax.random.key_data(jax.random.fold_in(key, _DROP_STREAM))
    return map_inputs(lambda images: (images, data), with_step(query_batch_fn)(key, task, params, shared, step))

  return keyed_batch


def augmented_query(query_batch_fn: QueryBatchFn, transform: ImageTransform) -> QueryBatchFn:
  """`query_batch_fn` with its images transformed. Batches are `(images, labels)`.

  Args:
    query_batch_fn: Makes batches `(images [n, height, width, channels], labels)`.
    transform: For example `random_flip()`.

  Returns:
    A `QueryBatchFn`, its batches likewise.

  Example:
    >>> from warpjax import full_query
    >>> task = Task((), (jnp.ones((3, 8, 8, 1)), jnp.arange(3)))
    >>> images, labels = augmented_query(full_query, random_flip())(jax.random.key(0), task, (), ())
    >>> images.shape, labels.tolist()
    ((3, 8, 8, 1), [0, 1, 2])
  """

  def augmented_batch(key: jax.Array, task: Task, params: Params, shared: PyTree, step: Any = 0) -> Batch:
    batch = with_step(query_batch_fn)(key, task, params, shared, step)
    return map_inputs(partial(transform, jax.random.fold_in(key, _STREAM)), batch)

  return augmented_batch
