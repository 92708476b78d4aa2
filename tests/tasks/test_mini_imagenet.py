from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from warpjax.tasks import DatasetNotFoundError, few_shot, mini_imagenet, splits

TREE = {"train/n2": (200, 10, 10), "train/n1": (10, 200, 10), "val/n3": (10, 10, 200), "test/n4": (90, 90, 90)}


def _write(root, tree=TREE, count=2, size=84):
  for folder, colour in tree.items():
    (root / folder).mkdir(parents=True)
    for i in range(count):
      pixels = np.full((size, size, 3), colour, np.uint8) + np.uint8(20 * i)
      Image.fromarray(pixels).save(root / folder / f"{i}.jpg", quality=95)
  return root


def test_the_folders_become_arrays_in_their_own_split(tmp_path):
  data = mini_imagenet.load(_write(tmp_path / "data"), tmp_path / "cache")
  assert data.split == splits.make_split(["n1", "n2"], ["n3"], ["n4"])
  assert data.train.shape == (2, 2, 84, 84, 3) and data.val.shape == (1, 2, 84, 84, 3) and data.test.dtype == np.uint8
  for part, names in zip(data[:3], data.split, strict=True):
    for array, name in zip(part, names, strict=True):
      colour = next(colour for folder, colour in TREE.items() if folder.endswith(name))
      np.testing.assert_allclose(array.mean((1, 2)), [np.array(colour) + 20 * i for i in range(2)], atol=2)
  few_shot.sampler(data.train, ways=2, shots=1, queries=1)


def test_the_second_load_reads_the_cache(tmp_path, monkeypatch):
  root = _write(tmp_path / "data")
  first = mini_imagenet.load(root, tmp_path / "cache")
  monkeypatch.setattr(mini_imagenet.image_folder, "read", None)
  again = mini_imagenet.load(root, tmp_path / "cache")
  assert isinstance(again.train, np.memmap) and again.split == first.split
  np.testing.assert_array_equal(again.train, first.train)


def test_other_sizes_grey_images_and_a_folder_above(tmp_path):
  root = _write(tmp_path / "data" / "mini_imagenet", size=50)
  Image.fromarray(np.full((30, 40), 7, np.uint8)).save(root / "val" / "n3" / "0.jpg")
  data = mini_imagenet.load(tmp_path / "data", tmp_path / "cache", size=32)
  assert data.val.shape == (1, 2, 32, 32, 3)
  np.testing.assert_allclose(data.val[0, 0], 7, atol=2)


@pytest.mark.parametrize("given", [True, False])
def test_an_absent_set_is_one_message(tmp_path, monkeypatch, given):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  where = str(tmp_path) if given else "neither data_dir nor TFDS_DATA_DIR is set"
  with pytest.raises(DatasetNotFoundError, match="mini-ImageNet was not found") as caught:
    mini_imagenet.load(tmp_path if given else None, tmp_path / "cache")
  assert where in str(caught.value) and "--data_dir=DIR" in str(caught.value)


def test_a_class_in_two_parts_is_refused(tmp_path):
  root = _write(tmp_path / "data", {**TREE, "test/n1": (0, 0, 0)})
  with pytest.raises(ValueError, match="must be disjoint; 1 names occur twice, such as 'n1'"):
    mini_imagenet.load(root, tmp_path / "cache")
