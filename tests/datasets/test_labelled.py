"""Sets of labelled examples: idx files of the real format, made here, and MNIST-1D by its package."""

from __future__ import annotations

import gzip
import random

import numpy as np
import pytest

from tests.datasets.idx_files import write_idx, write_set
from warpjax.datasets.labelled import fashion_mnist, mnist1d
from warpjax.datasets.store import DatasetNotFoundError


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_four_files_are_read(tmp_path, suffix):
  images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
  order = np.argsort(images[:, 0, 0])  # a set has one order, whatever its source
  for name in fashion_mnist.FILES:
    write_idx(tmp_path / f"{name}{suffix}", images if "images" in name else np.arange(5, dtype=np.uint8))
  found = fashion_mnist.load(tmp_path)
  np.testing.assert_array_equal(found.train_x, images[order])
  np.testing.assert_array_equal(found.test_y, np.arange(5)[order])
  assert found.train_x.dtype == np.uint8 and found.train_y.dtype == np.int32


def test_an_absent_set_is_named_at_once(tmp_path, monkeypatch):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  write_set(tmp_path / "three")
  (tmp_path / "three" / "t10k-labels-idx1-ubyte.gz").unlink()
  with pytest.raises(DatasetNotFoundError, match="was not found in .*three.*download is off.*dataset-fashion-mnist"):
    fashion_mnist.load(tmp_path / "three", download=False)


def test_a_broken_file_is_named(tmp_path):
  folder = write_set(tmp_path, suffix="")
  images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
  whole = images.read_bytes()
  images.write_bytes(whole[:-1])
  with pytest.raises(ValueError, match=r"train-images-idx3-ubyte must hold \(30, 28, 28\) bytes; it has 23519"):
    fashion_mnist.load(folder)
  images.write_bytes(b"\x89PNG" + whole)
  with pytest.raises(ValueError, match=r"train-images-idx3-ubyte is no idx file of bytes: it starts with b'\\x89PNG'"):
    fashion_mnist.load(folder)
  images.write_bytes(gzip.compress(whole)[:-100])
  with pytest.raises(ValueError, match="train-images-idx3-ubyte is a broken gzip file"):
    fashion_mnist.load(folder)
  images.write_bytes(whole)
  write_idx(labels, np.zeros(29, np.uint8))
  with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte must have a label for each image .* got \(29,\)"):
    fashion_mnist.load(folder)


def test_the_published_set_has_its_sizes():
  if not fashion_mnist._idx_files(fashion_mnist.DEBIAN):
    pytest.skip(f"needs Fashion-MNIST in {fashion_mnist.DEBIAN}, of the Debian package dataset-fashion-mnist")
  found = fashion_mnist.load(fashion_mnist.DEBIAN)
  assert found.train_x.shape == (60000, 28, 28) and found.test_x.shape == (10000, 28, 28)
  assert np.bincount(found.train_y).tolist() == [6000] * 10


def test_mnist1d_is_made_without_a_download_and_leaves_the_global_generators_alone():
  pytest.importorskip("mnist1d", reason='needs the extra "mnist1d"')
  random.seed(1), np.random.seed(1)
  expected = random.random(), np.random.random()
  random.seed(1), np.random.seed(1)
  one, other = mnist1d.load(100), mnist1d.load(100)
  assert (random.random(), np.random.random()) == expected
  assert one.train_x.shape == (80, 40) and one.test_y.shape == (20,) and one.train_x.dtype == np.float32
  np.testing.assert_array_equal(one.train_x, other.train_x)
  assert np.abs(mnist1d.load(100, seed=1).train_x - one.train_x).max() > 0.1
