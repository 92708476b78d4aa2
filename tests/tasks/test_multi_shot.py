from __future__ import annotations

import jax
import numpy as np
import pytest

from warpjax.datasets import splits
from warpjax.tasks import multi_shot

SIZES = {"A": 22, "B": 25, "C": 21}
NAMES = [f"{alphabet}/character{i:02d}" for alphabet, size in SIZES.items() for i in range(size)]
# Two pixels name an image: its class, and which of 20 examples it is.
IMAGES = np.stack(np.broadcast_arrays(np.arange(len(NAMES))[:, None], np.arange(20)), -1).astype(np.uint8)
IMAGES = IMAGES.reshape(len(NAMES), 20, 1, 2, 1)


def _arrays(**kwargs):
  return multi_shot.alphabet_images(IMAGES, NAMES, ["B", "C"], **kwargs)


def test_an_alphabet_holds_its_own_characters_whole():
  arrays = _arrays(ways=20)
  assert arrays.shape == (2, 20, 20, 1, 2, 1) and arrays.dtype == np.uint8
  for alphabet, array in zip("BC", arrays, strict=True):
    for character in array:
      assert len(set(character[:, 0, 0, 0])) == 1 and sorted(character[:, 0, 1, 0]) == list(range(20))
    classes = array[:, 0, 0, 0, 0]
    assert len(set(classes)) == 20 and {splits.alphabet_of(NAMES[c]) for c in classes} == {alphabet}


def test_the_draw_depends_on_the_seed_and_not_on_the_other_alphabets_or_the_order():
  assert not np.array_equal(_arrays(seed=1), _arrays(seed=0))
  np.testing.assert_array_equal(multi_shot.alphabet_images(IMAGES, NAMES, ["C"])[0], _arrays()[1])
  order = np.random.default_rng(0).permutation(len(NAMES))
  shuffled = multi_shot.alphabet_images(IMAGES[order], [NAMES[i] for i in order], ["B", "C"])
  np.testing.assert_array_equal(shuffled, _arrays())


def test_a_task_is_15_training_and_5_held_out_drawings_of_each_class():
  draw = multi_shot.sampler(_arrays())
  tasks = jax.jit(lambda draw, keys: jax.vmap(draw)(keys))(draw, jax.random.split(jax.random.key(0), 30))
  (x, y), (query_x, query_y) = jax.tree.map(np.asarray, tasks)
  assert x.shape == (30, 300, 1, 2, 1) and query_x.shape == (30, 100, 1, 2, 1) and x.dtype == np.uint8
  assert y.dtype == np.int32 and (np.bincount(y[0]) == 15).all() and (np.bincount(query_y[0]) == 5).all()
  for i in range(30):
    support, query = ({tuple(v) for v in part[i].reshape(-1, 2)} for part in (x, query_x))
    assert len(support) == 300 and len(query) == 100 and not support & query
    pairs = set(zip(y[i], x[i, :, 0, 0, 0], strict=True)) | set(zip(query_y[i], query_x[i, :, 0, 0, 0], strict=True))
    assert len(pairs) == 20, "a label is one character, in support and query"
  assert len({frozenset(x[i, :, 0, 0, 0]) for i in range(30)}) == 2


def test_meta_training_may_have_training_images_in_both_fields():
  task = multi_shot.sampler(_arrays(), query="support")(jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, task.query, task.support)


def test_all_tasks_are_each_alphabet_once():
  arrays = _arrays()
  tasks = multi_shot.all_tasks(arrays, held_out=4)
  assert tasks.support[0].shape == (2, 320, 1, 2, 1)
  np.testing.assert_array_equal(tasks.query[0][1], arrays[1, :, 16:].reshape(80, 1, 2, 1))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: _arrays(ways=22), "ways must be 1 to the 21 characters of C; got 22"),
    (lambda: multi_shot.alphabet_images(IMAGES, NAMES, ["D"]), "ways must be 1 to the 0 characters of D; got 20"),
    (lambda: multi_shot.sampler(IMAGES), "images must be uint8 .*; got uint8 of shape"),
    (lambda: multi_shot.sampler(_arrays() / 255), "images must be uint8 .*; got float"),
    (lambda: multi_shot.sampler(_arrays(), held_out=20), "held_out must be 1 to 19, .*; got 20"),
    (lambda: multi_shot.sampler(_arrays(), query="all"), "query must be one of 'held_out', 'support'; got 'all'"),
  ],
)
def test_bad_arguments(make, message):
  with pytest.raises(ValueError, match=message):
    make()
