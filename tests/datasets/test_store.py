from __future__ import annotations

import os

import numpy as np
import pytest

from warpjax.datasets import image_listing, store

ARRAYS = {"x": np.arange(6, dtype=np.uint8).reshape(2, 3)}


def _make(calls):
  calls.append(1)
  return ARRAYS, {"names": ["a", "b"]}


def test_arrays_are_made_once_for_the_same_settings(tmp_path):
  calls: list[int] = []
  for size in (28, 28, 14):
    arrays, metadata = store.load_or_make("set", {"size": size}, lambda: _make(calls), tmp_path)
    np.testing.assert_array_equal(arrays["x"], ARRAYS["x"])
    assert isinstance(arrays["x"], np.memmap) and not arrays["x"].flags.writeable
    assert metadata == {"names": ["a", "b"]}
  assert len(calls) == 2 and len(list(tmp_path.iterdir())) == 2


def test_what_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise OSError("disk full")

  with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
    patch.setattr(np, "save", fail)
    store.load_or_make("set", {}, lambda: _make([]), tmp_path)
  assert list(tmp_path.iterdir()) == []
  assert store.load_or_make("set", {}, lambda: _make([]), tmp_path)[0].keys() == {"x"}


def test_two_that_make_the_same_arrays_at_once_agree(tmp_path):
  def make():
    inner = store.load_or_make("set", {}, lambda: _make([]), tmp_path)
    return {"x": inner[0]["x"] + 1}, {}

  arrays, _ = store.load_or_make("set", {}, make, tmp_path)
  np.testing.assert_array_equal(arrays["x"], ARRAYS["x"])
  assert len(list(tmp_path.iterdir())) == 1


def test_the_default_folder_is_the_users(monkeypatch, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert store.default_dir() == tmp_path / "warpjax"
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  assert store.default_dir() == tmp_path / "home" / ".cache" / "warpjax"


def test_the_fingerprint_changes_with_the_files(tmp_path):
  (tmp_path / "a").mkdir()
  file = tmp_path / "a" / "1.png"
  file.write_bytes(b"one")
  os.utime(file, (1, 1))
  before = store.fingerprint(tmp_path / "a")
  assert store.fingerprint(tmp_path / "a") == before
  os.utime(file, (2, 2))
  touched = store.fingerprint(tmp_path / "a")
  file.rename(tmp_path / "a" / "2.png")
  assert len({before, touched, store.fingerprint(tmp_path / "a")}) == 3


def test_the_fingerprint_sees_one_file_among_many_folders(tmp_path):
  for name in ("train/x/1.png", "train/y/1.png", "train/y/deep/1.png", "train/list.csv"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"one")
  found = [store.fingerprint(tmp_path / "train")]
  (tmp_path / "train/y/deep/2.png").write_bytes(b"")  # added
  found.append(store.fingerprint(tmp_path / "train"))
  (tmp_path / "train/y/deep/2.png").rename(tmp_path / "train/y/2.png")  # moved
  found.append(store.fingerprint(tmp_path / "train"))
  (tmp_path / "train/x/1.png").write_bytes(b"one and more")  # changed in place
  found.append(store.fingerprint(tmp_path / "train"))
  (tmp_path / "train/list.csv").unlink()  # removed
  found.append(store.fingerprint(tmp_path / "train"))
  assert len(set(found)) == 5 and store.fingerprint(tmp_path / "train") == found[-1]
  assert store.fingerprint(f"{tmp_path}/train") == found[-1]


def test_the_fingerprint_is_of_what_links_lead_to(tmp_path):
  """Splits are often folders of links to the folders of classes; a link to a folder around it ends there."""
  for name, size in (("a", 10), ("b", 99)):
    (tmp_path / name / "images").mkdir(parents=True)
    (tmp_path / name / "images" / "1.png").write_bytes(b"x" * size)
    (tmp_path / name / "train").mkdir()
    (tmp_path / name / "train" / "class").symlink_to(tmp_path / name / "images", target_is_directory=True)
    (tmp_path / name / "train" / "loop").symlink_to(tmp_path / name / "train", target_is_directory=True)
  assert store.fingerprint(tmp_path / "a" / "train") != store.fingerprint(tmp_path / "b" / "train")
  assert list(image_listing.read(tmp_path / "a" / "train").classes) == ["class"]
