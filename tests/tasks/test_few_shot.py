from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from warpjax.tasks import few_shot, tasks_from_arrays

CLASSES, EXAMPLES, SIZE = 12, 8, 4
MODES = ("none", "per_class", "as_classes")
KEYS = jax.random.split(jax.random.key(0), 300)


def _images():
  """Pixel (0, 0) names the class and pixel (0, 1) the example; pixel (0, 0) moves when the image turns."""
  images = np.zeros((CLASSES, EXAMPLES, SIZE, SIZE, 1), np.uint8)
  images[:, :, 0, 0, 0] = 100 + np.arange(CLASSES)[:, None]
  images[:, :, 0, 1, 0] = 1 + np.arange(EXAMPLES)
  return images


def _draw(ways, shots, queries, **kwargs):
  draw = few_shot.sampler(_images(), ways, shots, queries, preprocess=lambda x: x, **kwargs)
  return jax.tree.map(np.asarray, jax.jit(lambda draw, keys: jax.vmap(draw)(keys))(draw, KEYS))


def _identify(x):
  """Class, example and turn of each image of `[n, h, w, 1]`."""
  corners = np.stack([np.rot90(x, -turn, axes=(1, 2))[:, 0, 0, 0] for turn in range(4)])
  turns = corners.argmax(0)
  upright = np.stack([np.rot90(image, -turn) for image, turn in zip(x, turns, strict=True)])
  return upright[:, 0, 0, 0].astype(int) - 100, upright[:, 0, 1, 0].astype(int) - 1, turns


@pytest.mark.parametrize("rotations", MODES)
def test_every_task_is_a_proper_episode(rotations):
  ways, shots, queries = 5, 2, 3
  tasks = _draw(ways, shots, queries, rotations=rotations)
  assert tasks.support[0].shape == (300, 10, SIZE, SIZE, 1) and tasks.query[1].shape == (300, 15)
  assert tasks.support[1].dtype == np.int32
  for i in range(40):
    seen = {}
    for (x, y), count in ((tasks.support, shots), (tasks.query, queries)):
      np.testing.assert_array_equal(np.bincount(y[i]), [count] * ways)
      classes, examples, turns = _identify(x[i])
      for label, *image in zip(y[i], classes, examples, turns, strict=True):
        seen.setdefault(int(label), []).append(tuple(image))
    for images in seen.values():
      assert len({(c, t) for c, _, t in images}) == 1, "a label is one class, turned one way"
      assert len({e for _, e, _ in images}) == shots + queries, "no example occurs twice"
    kinds = [(images[0][0], images[0][2] if rotations == "as_classes" else 0) for images in seen.values()]
    assert len(set(kinds)) == ways, "no class occurs twice"


def test_turns_are_those_of_the_mode():
  turns = {mode: _identify(_draw(5, 1, 1, rotations=mode).support[0].reshape(-1, SIZE, SIZE, 1))[2] for mode in MODES}
  assert set(turns["none"]) == {0}
  for mode in ("per_class", "as_classes"):
    np.testing.assert_allclose(np.bincount(turns[mode]) / 1500, 0.25, atol=0.05)


def test_turned_copies_are_new_classes_that_can_meet_in_a_task():
  tasks = _draw(12, 1, 1, rotations="as_classes")
  classes = [_identify(x)[0] for x in tasks.support[0]]
  assert min(len(set(c)) for c in classes) < 12


def test_classes_examples_labels_and_order_are_uniform():
  tasks = _draw(3, 1, 1)
  classes, examples, _ = _identify(tasks.support[0].reshape(-1, SIZE, SIZE, 1))
  labels = tasks.support[1].reshape(-1)
  # 900 draws: a share p has a standard deviation of sqrt(p / 900), about 0.01 here.
  np.testing.assert_allclose(np.bincount(classes, minlength=CLASSES) / 900, 1 / CLASSES, atol=0.045)
  np.testing.assert_allclose(np.bincount(examples, minlength=EXAMPLES) / 900, 1 / EXAMPLES, atol=0.05)
  joint = np.histogram2d(classes, labels, bins=(CLASSES, 3))[0] / 900
  np.testing.assert_allclose(joint, 1 / (3 * CLASSES), atol=0.03)
  np.testing.assert_allclose(np.bincount(tasks.support[1][:, 0]) / 300, 1 / 3, atol=0.11)


def test_the_images_are_an_argument_and_not_a_constant():
  draw = few_shot.sampler(_images(), 2, 1, 1)
  jaxpr = jax.make_jaxpr(lambda draw, key: draw(key))(draw, KEYS[0])
  assert all(np.size(constant) < 100 for constant in jaxpr.consts)
  assert [leaf.shape for leaf in jax.tree.leaves(draw)] == [(CLASSES, EXAMPLES, SIZE, SIZE, 1)]


def test_the_same_key_gives_the_same_task_alone_batched_and_in_float64():
  draw = few_shot.sampler(_images(), 4, 2, 2, rotations="per_class")
  batched, alone = jax.jit(jax.vmap(draw))(KEYS[:3]), jax.jit(draw)(KEYS[1])
  jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf: leaf[1], batched), alone)
  with jax.enable_x64(True):
    task = jax.jit(few_shot.sampler(_images(), 4, 2, 2, rotations="per_class"))(KEYS[1])
  assert task.support[0].dtype == jnp.float64 and task.support[1].dtype == jnp.int32
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), task, alone)


def test_preprocessing():
  x = jnp.array([0, 51, 255], jnp.uint8)
  np.testing.assert_allclose(few_shot.to_unit(x), [0, 0.2, 1], atol=1e-7)
  x, _ = jax.jit(few_shot.sampler(_images(), 2, 1, 1))(KEYS[0]).support
  assert x.dtype == jnp.float32 and x.min() >= 0 and 100 / 255 <= x.max() <= 1


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"ways": 13}, "ways must be at most the 12 classes there are; got 13"),
    ({"ways": 49, "rotations": "as_classes"}, "ways must be at most the 48 classes there are; got 49"),
    ({"shots": 5, "queries": 4}, r"shots \+ queries must be at most the 8 examples there are; got 5 \+ 4"),
    ({"ways": 0}, "ways must be an integer of at least 1; got 0"),
    ({"shots": 0}, "shots must be an integer of at least 1; got 0"),
    ({"queries": -1}, "queries must be an integer of at least 1; got -1"),
    ({"rotations": "some"}, "rotations must be one of 'none', 'per_class', 'as_classes'; got 'some'"),
    ({"images": np.zeros((12, 8, 4, 4), np.uint8)}, r"images must be \[classes, .*got shape \(12, 8, 4, 4\)"),
    ({"images": np.zeros((12, 8, 4, 4, 1), np.float32)}, "images must be uint8; got float32"),
    ({"images": np.zeros((12, 8, 4, 5, 1), np.uint8), "rotations": "per_class"}, "needs square images; got 4 x 5"),
  ],
)
def test_bad_arguments(change, message):
  with pytest.raises(ValueError, match=message):
    few_shot.sampler(**{"images": _images(), "ways": 2, "shots": 1, "queries": 1, **change})


@pytest.mark.parametrize(("total", "count"), [(1, 1), (5, 5), (7, 3), (4800, 20)])
def test_choose_draws_without_replacement(total, count):
  chosen = np.asarray(jax.jit(jax.vmap(lambda key: few_shot.choose(key, total, count)))(KEYS))
  assert chosen.min() >= 0 and chosen.max() < total
  assert all(len(set(row)) == count for row in chosen)


def test_choose_reaches_every_ordered_pair_equally():
  keys = jax.random.split(jax.random.key(1), 6000)
  pairs = np.asarray(jax.jit(jax.vmap(lambda key: few_shot.choose(key, 4, 2)))(keys))
  counts = np.bincount(pairs[:, 0] * 4 + pairs[:, 1], minlength=16).reshape(4, 4)
  expected = 500 * (1 - np.eye(4))
  np.testing.assert_allclose(counts, expected, atol=110)  # 5 standard deviations


def test_tasks_from_arrays_splits_a_stored_task():
  x = np.arange(6 * 10 * 2).reshape(6, 10, 2)
  draw = tasks_from_arrays({"x": x}, x[..., 0] // 20, shots=3, queries=4)
  tasks = jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(KEYS[:60]))
  for i in range(60):
    rows = np.concatenate([tasks.support[0]["x"][i], tasks.query[0]["x"][i]])[:, 0]
    assert len(set(rows)) == 7 and len(set(rows // 20)) == 1
    np.testing.assert_array_equal(tasks.support[1][i], tasks.support[0]["x"][i][:, 0] // 20)
  assert len(set(tasks.support[1][:, 0])) == 6


@pytest.mark.parametrize(
  ("y", "shots", "message"),
  [
    (np.zeros((6, 9)), 1, "x and y must share the leading axes"),
    (np.zeros(6), 1, "x and y must share the leading axes"),
    (np.zeros((6, 10)), 8, r"shots \+ queries must be at most the 10 examples"),
  ],
)
def test_tasks_from_arrays_refuses(y, shots, message):
  with pytest.raises(ValueError, match=message):
    tasks_from_arrays(np.zeros((6, 10, 2)), y, shots=shots, queries=3)


def test_classes_of_other_sizes_give_only_their_own_examples():
  counts = [2, 8, 3]
  images = np.zeros((3, 8, 2, 2, 1), np.uint8)
  for i, count in enumerate(counts):
    images[i, :count] = 10 * i + 1 + np.arange(count)[:, None, None, None]
  draw = few_shot.sampler(images, 3, 1, 1, preprocess=lambda x: x, counts=counts)
  tasks = jax.jit(jax.vmap(draw))(KEYS)
  seen = {int(value) for part in tasks for value in np.unique(part[0])}
  assert seen == {1, 2, *range(11, 19), 21, 22, 23}
  together = np.concatenate([np.asarray(part[0])[..., 0, 0, 0] for part in tasks], axis=1)
  assert all(len(set(row)) == 6 for row in together)


@pytest.mark.parametrize("rotations", [pytest.param("none", marks=pytest.mark.slow), "per_class"])
def test_images_on_the_host_give_the_same_tasks(tmp_path, rotations):
  np.save(tmp_path / "images.npy", _images())
  mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
  there, here = (few_shot.sampler(mapped, 3, 2, 1, rotations=rotations, on_device=on) for on in (False, True))
  assert all(leaf.size < 100 for leaf in jax.tree.leaves(there))
  expected = jax.jit(jax.vmap(here))(KEYS[:20])
  jax.tree.map(np.testing.assert_array_equal, jax.jit(jax.vmap(there))(KEYS[:20]), expected)
  jax.tree.map(np.testing.assert_array_equal, there(KEYS[0]), jax.tree.map(lambda leaf: leaf[0], expected))


@pytest.mark.parametrize(
  ("counts", "message"),
  [
    ([8] * 11, "counts must be 12 numbers of at most 8; got 11 up to 8"),
    ([9] * 12, "counts must be 12 numbers of at most 8; got 12 up to 9"),
    ([8] * 11 + [1], r"shots \+ queries must be at most the 1 examples there are; got 1 \+ 1"),
  ],
)
def test_bad_counts(counts, message):
  with pytest.raises(ValueError, match=message):
    few_shot.sampler(_images(), 2, 1, 1, counts=counts)
