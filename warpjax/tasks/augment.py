"""Random affine maps of images on the device, inside `jit`, and how a batch function comes to use them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from warpjax.tasks import few_shot
from warpjax.types import Batch, BatchFn, Params, PyTree, QueryBatchFn, Task

ImageTransform = Callable[[jax.Array, jax.Array], jax.Array]
"""`(key, images [n, height, width, channels]) -> images`."""

# A stream of its own, apart from the one that chooses the batch.
_STREAM = 0xAF1E


def random_affine(
  *,
  degrees: tuple[float, float] = (0.0, 360.0),
  translate: float = 0.2,
  scale: tuple[float, float] = (0.8, 1.2),
  fill: float = 0.0,
) -> ImageTransform:
  """Every image turned, scaled about its centre and shifted by its own random amounts, bilinear between pixels.

  Args:
    degrees: Bounds of the angle, counter-clockwise.
    translate: Largest shift, as a fraction of height and of width.
    scale: Bounds of the magnification.
    fill: Value outside the image.

  Returns:
    `(key, images) -> images` over `[n, height, width, channels]`; uint8 images become [0, 1] first.

  Raises:
    ValueError: for bounds in the wrong order, a translate outside [0, 1], or a scale that is not positive.

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
  lows, highs = np.array([np.radians(degrees), scale, *2 * [(-translate, translate)]]).T

  def transform(key: jax.Array, images: jax.Array) -> jax.Array:
    images = few_shot.to_unit(images) if images.dtype == jnp.uint8 else images
    numbers = jax.random.uniform(key, (images.shape[0], 4), images.dtype, lows, highs)
    shift = numbers[:, 2:] * jnp.asarray(images.shape[1:3])
    return jax.vmap(affine, (0, 0, 0, 0, None))(images, numbers[:, 0], numbers[:, 1], shift, fill)

  return transform


def affine(image: jax.Array, angle: jax.Array, scale: jax.Array, shift: jax.Array, fill: float = 0.0) -> jax.Array:
  """One image `[height, width, channels]` turned by `angle` (radians, counter-clockwise), magnified, then shifted.

  Args:
    image: Floating-point.
    angle: Scalar.
    scale: Scalar, above 1 enlarges.
    shift: `[2]`: pixels down, pixels right.
    fill: Value outside the image.

  Returns:
    The image of the same shape, bilinear between pixels.
  """
  height, width = image.shape[:2]
  row = (jnp.arange(height) - (height - 1) / 2 - shift[0])[:, None]
  column = (jnp.arange(width) - (width - 1) / 2 - shift[1])[None, :]
  cosine, sine = jnp.cos(angle) / scale, jnp.sin(angle) / scale
  # Where in the old image each new pixel comes from; rows grow downwards.
  source = [
    cosine * row + sine * column + (height - 1) / 2,
    cosine * column - sine * row + (width - 1) / 2,
  ]
  channel = lambda plane: map_coordinates(plane, source, order=1, mode="constant", cval=fill)
  return jax.vmap(channel, in_axes=2, out_axes=2)(image)


def augmented(batch_fn: BatchFn, transform: ImageTransform) -> BatchFn:
  """`batch_fn` with its images transformed, anew at every inner step. Batches are `(images, labels)`."""

  def augmented_batch(key: jax.Array, support: PyTree, step: jax.Array, params: Params, shared: PyTree) -> Batch:
    images, labels = batch_fn(key, support, step, params, shared)
    return transform(jax.random.fold_in(jax.random.fold_in(key, _STREAM), step), images), labels

  return augmented_batch


def augmented_query(query_batch_fn: QueryBatchFn, transform: ImageTransform) -> QueryBatchFn:
  """`query_batch_fn` with its images transformed. Batches are `(images, labels)`."""

  def augmented_batch(key: jax.Array, task: Task, params: Params, shared: PyTree) -> Batch:
    images, labels = query_batch_fn(key, task, params, shared)
    return transform(jax.random.fold_in(key, _STREAM), images), labels

  return augmented_batch
