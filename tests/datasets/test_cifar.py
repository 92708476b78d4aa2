from __future__ import annotations

import tarfile

import numpy as np
import pytest

from warpjax.datasets import cifar, splits, tfds_files
from warpjax.datasets.store import DatasetNotFoundError

NAMES = sorted(splits.published("cifar_fs").all)
TRAIN, TEST = 2, 1  # images of each class


def records(count, seed):
  rng = np.random.default_rng(seed)
  labels = rng.permutation(np.repeat(np.arange(100, dtype=np.uint8), count))
  pixels = rng.integers(0, 256, (len(labels), 3072), np.uint8)
  return np.concatenate([np.zeros_like(labels)[:, None], labels[:, None], pixels], axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """`cifar-100-binary/`, as upstream has it, with noise for images."""
  root = tmp_path_factory.mktemp("cifar") / "cifar-100-binary"
  root.mkdir()
  (root / "train.bin").write_bytes(records(TRAIN, 0).tobytes())
  (root / "test.bin").write_bytes(records(TEST, 1).tobytes())
  (root / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n")
  (root / "coarse_label_names.txt").write_text("\n".join(f"coarse{i}" for i in range(20)) + "\n")
  with tarfile.open(root.with_suffix(".tar.gz"), "w:gz") as archive:
    archive.add(root, root.name)
  return root


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
  root = tmp_path_factory.mktemp("tfds")
  cifar.prepare(root, folder.parent)
  return root


def of_class(name, folder):
  files = [
    np.frombuffer((folder / part).read_bytes(), np.uint8).reshape(-1, 3074) for part in ("train.bin", "test.bin")
  ]
  rows = np.concatenate(files)
  rows = rows[rows[:, 1] == NAMES.index(name)]
  return np.stack(
    [np.stack([row[2 + 1024 * c : 2 + 1024 * (c + 1)].reshape(32, 32) for c in range(3)], -1) for row in rows]
  )


@pytest.mark.parametrize("name", cifar.NAMES)
@pytest.mark.parametrize("source", ["folder", "the folder itself", "archive", "tensorflow-datasets"])
def test_every_source_gives_the_same_pixels(name, source, folder, prepared, tmp_path):
  if source == "archive":
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-100-binary.tar.gz").write_bytes(folder.with_suffix(".tar.gz").read_bytes())
  roots = {"folder": folder.parent, "the folder itself": folder, "tensorflow-datasets": prepared}
  data = cifar.load(name, roots.get(source, tmp_path / "data"), tmp_path / "cache")
  assert data.split == splits.published(name) and data.train.shape == (len(data.split.train), 3, 32, 32, 3)
  for array, names in zip(data[:3], data.split, strict=True):
    for i in (0, len(names) - 1):
      np.testing.assert_array_equal(array[i], of_class(names[i], folder))
  assert data.missing == "597 of 600 images of each class" and data.digest != data.split.digest


def test_a_part_is_refused_where_it_must_be_whole(folder, tmp_path):
  with pytest.raises(ValueError, match=r"CIFAR-100 must be whole \(require_complete\); .* lacks 597 of 600"):
    cifar.load("fc100", folder.parent, tmp_path, require_complete=True)


def test_the_splits_are_the_papers():
  fs, fc = splits.published("cifar_fs"), splits.published("fc100")
  assert [len(part) for part in fs] == [64, 16, 20] and [len(part) for part in fc] == [60, 20, 20]
  assert set(fs.all) == set(fc.all) and len(set(fs.all)) == 100
  # FC100's test superclasses: aquatic mammals, insects, medium mammals, people.
  assert {"whale", "bee", "skunk", "woman"} <= set(fc.test) and {"rocket", "rose"} <= set(fc.train)


def spoilt(folder, tmp_path, name, data):
  root = tmp_path / "cifar-100-binary"
  root.mkdir()
  for path in folder.iterdir():
    (root / path.name).write_bytes(data if path.name == name else path.read_bytes())
  return tmp_path


FAULTS = [
  ("train.bin", lambda data: data[:-5], r"train\.bin must hold records of 3074 bytes; it is cut short"),
  ("test.bin", lambda data: b"", r"test\.bin must hold records of 3074 bytes; it is cut short, 0 bytes"),
  (
    "test.bin",
    lambda data: data[:3074],
    r"must have 100 classes with the same number of images; found 100 with 2 to 3",
  ),
  ("fine_label_names.txt", lambda data: b"apple\n", r"labels must be below the 1 names; got 99"),
]


@pytest.mark.parametrize(("name", "change", "message"), FAULTS)
def test_a_faulty_file_is_one_error(folder, tmp_path, name, change, message):
  root = spoilt(folder, tmp_path, name, change((folder / name).read_bytes()))
  with pytest.raises(ValueError, match=message):
    cifar.load("cifar_fs", root, tmp_path / "cache")


def test_an_absent_or_broken_archive_is_one_error(tmp_path, monkeypatch):
  monkeypatch.setattr(tfds_files, "_probe", lambda url: (_ for _ in ()).throw(ConnectionError("no answer")))
  with pytest.raises(DatasetNotFoundError, match=r"CIFAR-100 was not found .*no answer.*warpjax prepare cifar100"):
    cifar.load("cifar_fs", tmp_path)
  (tmp_path / "cifar-100-binary.tar.gz").write_bytes(b"not an archive")
  with pytest.raises(ValueError, match=r"cannot be read \(.*\); fetch it again"):
    cifar.load("cifar_fs", tmp_path, tmp_path / "cache")


def test_an_unknown_name_is_refused():
  with pytest.raises(ValueError, match="name must be one of cifar_fs, fc100; got 'cifar'"):
    cifar.load("cifar", None)
