from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax.tasks import augment
from warpjax.types import Task, full_batch, full_query

IMAGE = jax.random.uniform(jax.random.key(0), (7, 7, 2))


def _affine(angle=0.0, scale=1.0, shift=(0.0, 0.0), fill=0.0, image=IMAGE):
  return np.asarray(augment.affine(image, jnp.asarray(angle), jnp.asarray(scale), jnp.asarray(shift), fill))


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_quarter_turns_are_counter_clockwise_and_exact(quarters):
  np.testing.assert_allclose(_affine(np.pi / 2 * quarters), np.rot90(IMAGE, quarters), atol=1e-5)


def test_a_shift_goes_down_and_right_and_fills():
  moved = _affine(shift=(2.0, 1.0), fill=0.5)
  np.testing.assert_allclose(moved[2:, 1:], IMAGE[:-2, :-1], atol=1e-6)
  np.testing.assert_allclose(moved[:2], 0.5)
  np.testing.assert_allclose(moved[:, :1], 0.5)


def test_half_a_pixel_is_the_mean_of_two():
  moved = _affine(shift=(0.0, 0.5))
  np.testing.assert_allclose(moved[:, 1:], (IMAGE[:, 1:] + IMAGE[:, :-1]) / 2, atol=1e-6)


def test_a_scale_above_one_enlarges_about_the_centre():
  ramp = jnp.broadcast_to(jnp.arange(7.0)[:, None, None], (7, 7, 1))
  np.testing.assert_allclose(_affine(scale=1.5, image=ramp)[:, 3, 0], 3 + (np.arange(7) - 3) / 1.5, atol=1e-5)


def test_turn_then_shift():
  both = _affine(np.pi / 2, shift=(1.0, 0.0))
  np.testing.assert_allclose(both[1:], np.rot90(IMAGE)[:-1], atol=1e-5)


def test_every_image_gets_its_own_numbers_within_the_bounds():
  """A bright pixel at the centre tells the shift; without shift, one off the centre tells angle and scale."""
  rows, columns = np.mgrid[:41, :41] - 20.0
  blob = jnp.asarray(np.exp(-(rows**2 + (columns - 8) ** 2) / 4), jnp.float32)[..., None]
  images = jnp.broadcast_to(blob, (300, 41, 41, 1))
  transform = augment.random_affine(degrees=(-90, 45), translate=0.0)
  out = np.asarray(jax.jit(transform)(jax.random.key(1), images))[..., 0]
  mass = out.sum((1, 2))
  row, column = (out * rows).sum((1, 2)) / mass, (out * columns).sum((1, 2)) / mass
  degrees, radius = np.degrees(np.arctan2(-row, column)), np.hypot(row, column) / 8
  assert -90.5 < degrees.min() < -85 and 40 < degrees.max() < 45.5
  assert 0.79 < radius.min() < 0.82 and 1.18 < radius.max() < 1.21
  assert abs(np.corrcoef(degrees, radius)[0, 1]) < 0.2


def test_shifts_reach_a_fraction_of_each_side():
  centre = jnp.zeros((300, 21, 41, 1)).at[:, 10, 20].set(1.0)
  out = np.asarray(jax.jit(augment.random_affine(degrees=(0, 0), scale=(1, 1)))(jax.random.key(2), centre))[..., 0]
  down = np.einsum("nhw,h->n", out, np.arange(21) - 10) / 21
  right = np.einsum("nhw,w->n", out, np.arange(41) - 20) / 41
  for share in (down, right):
    assert -0.201 < share.min() < -0.19 and 0.19 < share.max() < 0.201


def test_uint8_images_become_unit_floats_and_float64_stays():
  images = jnp.full((2, 9, 9, 1), 255, jnp.uint8)
  still = augment.random_affine(degrees=(0, 0), translate=0.0, scale=(1, 1))
  out = jax.jit(still)(jax.random.key(0), images)
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out, 1)
  with jax.enable_x64(True):
    assert jax.jit(augment.random_affine())(jax.random.key(0), jnp.ones((2, 9, 9, 1))).dtype == jnp.float64


def test_batch_functions_are_augmented_anew_at_every_step():
  images, labels = jnp.broadcast_to(IMAGE, (3, 7, 7, 2)), jnp.arange(3)
  transform, key = jax.jit(augment.random_affine()), jax.random.key(5)
  inner = augment.augmented(full_batch, transform)
  first, again, second = (inner(key, (images, labels), jnp.asarray(step), (), ()) for step in (0, 0, 1))
  np.testing.assert_array_equal(first[0], again[0])
  assert not np.allclose(first[0], second[0]) and not np.allclose(first[0][0], first[0][1])
  np.testing.assert_array_equal(first[1], labels)
  task = Task((images * 0, labels), (images, labels))
  query = augment.augmented_query(full_query, transform)(key, task, (), ())
  assert query[0].shape == images.shape and query[0].max() > 0.5
  assert not np.allclose(query[0], first[0])


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"degrees": (10, 0)}, r"degrees must be increasing bounds \(low, high\); got \(10, 0\)"),
    ({"scale": (1.2, 0.8)}, "scale must be increasing bounds"),
    ({"scale": (0.0, 1.0)}, "scale must be positive"),
    ({"interpolation": "cubic"}, "interpolation must be one of 'bilinear', 'nearest'; got 'cubic'"),
    ({"translate": 3}, "translate must be a fraction of the image, 0 to 1; got 3"),
  ],
)
def test_bad_arguments(kwargs, message):
  with pytest.raises(ValueError, match=message):
    augment.random_affine(**kwargs)


def test_the_nearest_pixel_keeps_the_values_and_shifts_by_whole_pixels():
  images = jnp.asarray(np.random.default_rng(0).random((40, 9, 9, 1)))
  transform = augment.random_affine(degrees=(0, 0), scale=(1, 1), translate=0.3, interpolation="nearest")
  moved = np.asarray(transform(jax.random.key(0), images))
  offsets = set()
  for before, after in zip(np.asarray(images), moved, strict=True):
    padded = np.pad(before[..., 0], 3)
    found = [(i, j) for i in range(7) for j in range(7) if np.array_equal(padded[i : i + 9, j : j + 9], after[..., 0])]
    assert len(found) == 1
    offsets |= set(found)
  assert len(offsets) > 10
  turned = np.asarray(augment.random_affine(interpolation="nearest")(jax.random.key(1), images))
  assert set(turned.ravel()) <= {0.0, *np.asarray(images).ravel()}


def test_what_is_turned_to_the_nearest_pixel_shifts_by_whole_pixels_too():
  images = jnp.pad(jax.random.uniform(jax.random.key(0), (30, 3, 3, 1), minval=0.1), ((0, 0), (4, 4), (4, 4), (0, 0)))
  make = lambda translate: augment.random_affine(
    degrees=(30, 30), scale=(1, 1), translate=translate, interpolation="nearest"
  )
  turned, moved = (np.asarray(make(translate)(jax.random.key(1), images))[..., 0] for translate in (0.0, 0.25))
  shifts = [(i, j) for i in range(-3, 4) for j in range(-3, 4)]
  for still, image in zip(turned, moved, strict=True):
    assert sum(np.array_equal(np.roll(still, shift, (0, 1)), image) for shift in shifts) == 1


COLOURS = jax.random.uniform(jax.random.key(3), (40, 6, 6, 3))
KEY = jax.random.key(4)


def test_a_crop_is_a_window_of_the_padded_image():
  cropped = np.asarray(augment.random_crop(2)(KEY, COLOURS))
  padded = np.pad(COLOURS, ((0, 0), (2, 2), (2, 2), (0, 0)))
  offsets = set()
  for image, whole in zip(cropped, padded, strict=True):
    found = [(i, j) for i in range(5) for j in range(5) if np.array_equal(whole[i : i + 6, j : j + 6], image)]
    assert len(found) == 1
    offsets |= set(found)
  assert len(offsets) > 12
  np.testing.assert_array_equal(augment.random_crop(0)(KEY, COLOURS), COLOURS)


def test_half_of_the_images_are_mirrored():
  flipped = np.asarray(augment.random_flip()(KEY, COLOURS))
  same = np.array([np.array_equal(a, b) for a, b in zip(flipped, COLOURS, strict=True)])
  mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, COLOURS, strict=True)])
  assert np.all(same ^ mirrored) and 8 < mirrored.sum() < 32


def test_colours_are_scaled_as_said():
  dim = 0.3 + 0.2 * COLOURS  # so dark and flat that nothing is cut
  brighter = np.asarray(augment.random_colour(0.4, 0.0, 0.0)(KEY, dim)) / dim
  assert np.ptp(brighter, axis=(1, 2, 3)).max() < 1e-5 and np.all(np.abs(brighter - 1) < 0.4001)
  assert np.ptp(brighter) > 0.5
  luma = np.array([0.299, 0.587, 0.114])
  flatter = np.asarray(augment.random_colour(0.0, 0.4, 0.0)(KEY, dim))
  mean = (dim @ luma).mean((1, 2))[:, None, None, None]
  ratios = (flatter - mean) / (dim - mean)
  np.testing.assert_allclose(ratios - np.median(ratios, (1, 2, 3), keepdims=True), 0, atol=1e-2)
  greyer = np.asarray(augment.random_colour(0.0, 0.0, 0.4)(KEY, dim))
  np.testing.assert_allclose(greyer @ luma, dim @ luma, atol=1e-5)
  assert not np.allclose(greyer, dim)


def test_colours_stay_in_their_range_and_uint8_becomes_a_fraction():
  images = np.asarray(COLOURS * 255, np.uint8)
  changed = augment.random_colour(1.0, 1.0, 1.0)(KEY, images)
  assert changed.dtype == jnp.float32 and changed.min() == 0 and changed.max() <= 1


def test_transforms_follow_one_another_with_keys_of_their_own():
  flip = augment.random_flip()
  both = augment.compose(flip, flip)(KEY, COLOURS)
  keys = [jax.random.fold_in(KEY, i) for i in range(2)]
  np.testing.assert_array_equal(both, flip(keys[1], flip(keys[0], COLOURS)))
  assert not np.array_equal(both, COLOURS)


def test_a_key_rides_with_the_images_anew_at_every_step():
  inner = augment.keyed(full_batch)
  (x, first), y = inner(KEY, (COLOURS, jnp.arange(40)), 0, (), ())
  assert x is COLOURS and y.shape == (40,) and first.dtype == jnp.uint32
  assert not np.array_equal(first, inner(KEY, (COLOURS, y), 1, (), ())[0][1])
  query = augment.keyed_query(full_query)(KEY, Task((), (COLOURS, y)), (), ())
  assert not np.array_equal(query[0][1], first)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: augment.random_crop(-1), "padding must be at least 0; got -1"),
    (lambda: augment.random_colour(contrast=2), "contrast must be 0 to 1; got 2"),
  ],
)
def test_bad_arguments_of_colour_images(make, message):
  with pytest.raises(ValueError, match=message):
    make()
