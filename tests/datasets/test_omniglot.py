from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error

import numpy as np
import pytest
from PIL import Image

from warpjax.datasets import omniglot, splits, tfds_files, tfds_images
from warpjax.datasets.store import DatasetNotFoundError

TREE = {
  "images_background/Greek/character01": 3,
  "images_background/Greek/character02": 3,
  "images_background/Latin/character01": 3,
  "images_evaluation/Angelic/character01": 3,
}


@pytest.fixture(autouse=True)
def _no_network_nor_settings(monkeypatch, tmp_path):
  def refuse(*args, **kwargs):
    raise urllib.error.URLError("no network in tests")

  monkeypatch.setattr(tfds_files.urllib.request, "urlopen", refuse)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))


def _write(root, tree, reverse=False):
  """Bilevel 105x105 images as upstream's: a black square on white, its place told by class and example."""
  for i, (folder, count) in enumerate(tree.items()):
    (root / folder).mkdir(parents=True)
    for example in range(count):
      pixels = np.ones((105, 105), bool)
      pixels[15 * i : 15 * i + 15, 30 * example : 30 * example + 15] = False
      name = count - example if reverse else example + 1
      Image.fromarray(pixels).save(root / folder / f"000{i}_{name:02d}.png")
  return root


def _load(root, tmp_path, **kwargs):
  return omniglot.load(root, tmp_path / "cache", download=False, **kwargs)


def test_the_upstream_trees_become_one_array(tmp_path):
  data = _load(_write(tmp_path / "data", TREE), tmp_path)
  assert data.images.shape == (4, 3, 28, 28, 1) and data.images.dtype == np.uint8
  assert data.names == ("Angelic/character01", "Greek/character01", "Greek/character02", "Latin/character01")
  assert data.alphabets == ("Angelic", "Greek", "Greek", "Latin") and data.split is None
  assert splits.background_evaluation(data.names).test == ("Angelic/character01",)
  # Ink is high on a ground of 0; class i's ink is in rows 4i..4i+3 of 28, at three different places.
  for name, row in (("Greek/character01", 0), ("Greek/character02", 4), ("Latin/character01", 8)):
    images = data.images[data.names.index(name)]
    assert images[:, row : row + 4].max() == 255 and images[:, row + 8 :].max() == 0
  assert {int(image.sum(axis=(0, 2)).argmax()) // 8 for image in data.images[1]} == {0, 1, 2}


def test_ink_is_inverted_on_request_only(tmp_path):
  root = _write(tmp_path / "data", TREE)
  np.testing.assert_array_equal(_load(root, tmp_path).images, 255 - _load(root, tmp_path, invert=False).images)


def test_size_and_filter(tmp_path):
  root = _write(tmp_path / "data", TREE)
  whole = _load(root, tmp_path, size=105)
  assert whole.images.shape == (4, 3, 105, 105, 1)
  assert set(np.unique(whole.images)) == {0, 255} and (whole.images == 255).sum() == 12 * 15 * 15
  box, lanczos = (_load(root, tmp_path, resample=name).images for name in ("box", "lanczos"))
  np.testing.assert_allclose(box.sum(), 12 * 255 * 15 * 15 * (28 / 105) ** 2, rtol=0.01)
  assert not np.array_equal(box, lanczos)


def test_the_order_of_examples_does_not_depend_on_file_names(tmp_path):
  one = _load(_write(tmp_path / "one", TREE), tmp_path)
  other = _load(_write(tmp_path / "other", TREE, reverse=True), tmp_path)
  np.testing.assert_array_equal(one.images, other.images)


def test_folders_that_come_split_keep_their_split(tmp_path):
  root = _write(tmp_path / "data", {"train/b": 2, "train/a": 2, "val/d": 2, "test/c": 2})
  data = _load(root, tmp_path)
  assert data.names == ("a", "b", "c", "d")
  assert data.split == splits.make_split(["a", "b"], ["d"], ["c"])


def test_the_second_load_reads_the_cache_and_leaves_the_data_alone(tmp_path, monkeypatch):
  root = _write(tmp_path / "data", TREE)
  before = sorted(root.rglob("*"))
  first = _load(root, tmp_path)
  monkeypatch.setattr(omniglot.decode, "read", None)
  again = _load(root, tmp_path)
  assert isinstance(again.images, np.memmap) and again.names == first.names
  np.testing.assert_array_equal(again.images, first.images)
  assert sorted(root.rglob("*")) == before


def test_classes_of_different_sizes_are_refused(tmp_path):
  root = _write(tmp_path / "data", {"images_background/Greek/character01": 2, "images_background/Greek/character02": 1})
  with pytest.raises(ValueError, match="every class must have the same number of images; found 1 to 2"):
    _load(root, tmp_path)


@pytest.mark.parametrize("download", [True, False])
def test_an_absent_set_is_one_message_at_once(tmp_path, download):
  start = time.monotonic()
  with pytest.raises(DatasetNotFoundError) as caught:
    omniglot.load(tmp_path / "absent", tmp_path / "cache", download=download)
  assert time.monotonic() - start < 5
  message = str(caught.value)
  assert str(tmp_path / "absent") in message and "(from data_dir)" in message
  assert ("no network in tests" if download else "download is off") in message
  for part in ("images_background/", "{train,val,test}/", "warpjax prepare omniglot --data_dir=DIR"):
    assert part in message
  assert not (tmp_path / "absent").exists() and not (tmp_path / "cache").exists()


def test_where_it_looks_without_a_data_dir(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "env"))
  with pytest.raises(DatasetNotFoundError, match=r"env \(from TFDS_DATA_DIR\)"):
    omniglot.load(None, tmp_path, download=False)
  monkeypatch.delenv("TFDS_DATA_DIR")
  with pytest.raises(DatasetNotFoundError, match="home/tensorflow_datasets"):
    omniglot.load(None, tmp_path, download=False)


def test_a_network_that_never_answers_is_given_up_soon(monkeypatch):
  monkeypatch.setattr(tfds_files, "PROBE_SECONDS", 0.1)
  released = threading.Event()

  def hang(*args, **kwargs):
    released.wait(30)
    raise urllib.error.URLError("too late")

  monkeypatch.setattr(tfds_files.urllib.request, "urlopen", hang)
  with pytest.raises(ConnectionError, match=r"waited 0.1 s"):
    tfds_images.prepare_omniglot("/nowhere")
  assert not released.is_set()
  released.set()


def test_a_set_that_only_tensorflow_reads_is_named(tmp_path):
  folder = tmp_path / "omniglot" / "3.0.0"
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
  with pytest.raises(DatasetNotFoundError, match="prepared as tfrecord, which needs TensorFlow"):
    _load(tmp_path, tmp_path)


def test_archives_that_are_not_there_are_named(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(FileNotFoundError, match=r"archives must hold images_\w+.zip"):
    tfds_images.prepare_omniglot(tmp_path / "data", tmp_path)
  assert not tfds_images.has_omniglot(tmp_path / "data")


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"size": 0}, "size must be at least 1; got 0"),
    ({"resample": "cubic"}, "resample must be one of nearest, .*'cubic'"),
  ],
)
def test_bad_arguments(tmp_path, kwargs, message):
  with pytest.raises(ValueError, match=message):
    _load(tmp_path, tmp_path, **kwargs)


def test_importing_the_package_imports_no_data_library():
  code = "import sys, warpjax.datasets; print({'tensorflow_datasets', 'tensorflow', 'PIL'} & set(sys.modules))"
  assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set: no prepared Omniglot")
def test_the_real_set(tmp_path):
  root = os.environ["TFDS_DATA_DIR"]
  if not tfds_images.has_omniglot(root):
    pytest.skip("TFDS_DATA_DIR holds no prepared Omniglot")
  data = omniglot.load(root, tmp_path, resample="box")
  assert data.images.shape == (1623, 20, 28, 28, 1)
  assert len(set(data.alphabets)) == 50 and set(splits.EVALUATION_ALPHABETS) < set(data.alphabets)
  assert [len(part) for part in splits.background_evaluation(data.names)] == [964, 0, 659]
  assert [len(part) for part in splits.random_characters(data.names)] == [1200, 0, 423]
  assert [len(part) for part in splits.multi_shot_alphabets(data.names, num_pretrain=25)] == [25, 11, 10]
  # Strokes cover about 8% of an image; no image is empty and no two of a class are the same.
  assert 0.06 < data.images.mean() / 255 < 0.11 and data.images.reshape(-1, 784).max(1).min() > 100
  assert all(len(np.unique(rows.reshape(20, -1), axis=0)) == 20 for rows in data.images[::50])
  assert omniglot.load(f"{root}/omniglot/3.0.0", tmp_path, resample="box").names == data.names


@pytest.mark.parametrize("decoding", [{}, {"resample": "nearest", "invert": False}, {"size": 105}], ids=str)
def test_the_packed_set_gives_the_same_images(tmp_path, decoding):
  """Also of pixels that are no squares, so that no row or bit can be in the place of another."""
  root, rng = _write(tmp_path / "data", TREE), np.random.default_rng(0)
  for path in root.rglob("*.png"):
    Image.fromarray(rng.random((105, 105)) < 0.9).save(path)
  omniglot.pack(tmp_path / "packed", root)
  wanted, found = _load(root, tmp_path, **decoding), _load(tmp_path / "packed", tmp_path, **decoding)
  np.testing.assert_array_equal(found.images, wanted.images)
  assert found[1:] == wanted[1:] and found.notes == ()
  assert [path.name for path in (tmp_path / "packed").iterdir()] == [omniglot.PACKED]


def test_what_cannot_be_packed_or_unpacked_is_named(tmp_path):
  root = _write(tmp_path / "data", TREE)
  with pytest.raises(DatasetNotFoundError, match=r"Omniglot, as published, was .*absent \(from data_dir\)"):
    omniglot.pack(tmp_path / "packed", tmp_path / "absent")
  Image.new("L", (105, 105)).save(root / "images_background/Greek/character01/0001_01.png")
  with pytest.raises(ValueError, match="mode 1, of one size .*; got 1 105x105, 3 a class, 1 105x105, 4 a class, L 105"):
    omniglot.pack(tmp_path / "packed", root)
  (tmp_path / "packed" / omniglot.PACKED).write_bytes(b"no archive")
  with pytest.raises(ValueError, match="omniglot_packed.npz must be a file of packed drawings; it is damaged"):
    _load(tmp_path / "packed", tmp_path)
