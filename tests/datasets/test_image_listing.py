"""What is no data stays out, is counted and is named; everything else is read."""

from __future__ import annotations

import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.datasets import image_files
from warpjax.datasets import (
  image_listing,
  image_sets,
  mini_imagenet,
  omniglot,
  published_set,
  splits,
  store,
  tfds_files,
)

RAVI = splits.published("mini_imagenet")


def tree(root, *names):
  """Files of these names; a name that ends in a slash is a folder."""
  for name in names:
    path = root / name
    (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
    if not name.endswith("/"):
      path.write_bytes(b"x")
  return root


def names(listing):
  return {name: [path.name for path in paths] for name, paths in listing.classes.items()}


def test_the_rule(tmp_path):
  root = tree(
    tmp_path / "train",
    *("cat/1.png", "cat/2.PNG", "cat/3.Jpeg", "cat/4.tif", "cat/5.TIFF", "cat/._1.png", "cat/Thumbs.db", "cat/README"),
    *("cat/.ipynb_checkpoints/1.png", "cat/1.png.part", "Greek/alpha/1.jpg", "Greek/beta/1.webp", "list.txt"),
    *(".git/objects/1.png", "__MACOSX/cat/._1.png", "dog/", "fox/den/", "fox/notes.txt", ".DS_Store"),
  )
  listing = image_listing.read(root)
  assert names(listing) == {
    "Greek/alpha": ["1.jpg"],
    "Greek/beta": ["1.webp"],
    "cat": ["1.png", "2.PNG", "3.Jpeg", "4.tif", "5.TIFF"],
  }
  hidden = (".DS_Store", ".git/", "__MACOSX/", "cat/._1.png", "cat/.ipynb_checkpoints/")
  assert listing.hidden == tuple(f"train/{name}" for name in hidden)
  strange = ("cat/1.png.part", "cat/README", "cat/Thumbs.db", "fox/notes.txt", "list.txt")
  assert listing.strange == tuple(f"train/{name}" for name in strange)
  assert listing.empty == ("train/dog/", "train/fox/")
  assert image_listing.notes([listing, image_listing.read(tree(tmp_path / "val", "owl/1.png", "owl/.x"))]) == [
    "6 hidden files and folders were left out: train/.DS_Store, train/.git/, train/__MACOSX/ and others",
    "5 files that are no images by their names were left out: train/cat/1.png.part, train/cat/README, "
    "train/cat/Thumbs.db and others",
    "2 folders without images were left out: train/dog/, train/fox/",
  ]


@pytest.mark.parametrize("where", [".", "", "../train", "cat/.."])
def test_a_folder_has_its_own_name_wherever_it_is_read_from(tmp_path, monkeypatch, where):
  monkeypatch.chdir(tree(tmp_path / "train", "cat/1.png", "cat/.x", "cat/y", "dog/"))
  _, *left_out = image_listing.read(where)
  assert left_out == [("train/cat/.x",), ("train/cat/y",), ("train/dog/",)]


def test_a_folder_with_nothing_else_has_no_notes(tmp_path):
  listing = image_listing.read(tree(tmp_path / ".cache" / "train", "cat/1.png"))  # a hidden folder around is nothing
  assert listing[1:] == ((), (), ()) and image_listing.notes([listing]) == []


@pytest.mark.parametrize(
  ("files", "message"),
  [
    (("1.png", "cat/1.png"), r"images must be in a folder for each class; 1 in .*train are in none: 1\.png"),
    (("cat/1.png", "cat/small/1.png"), r"a class must not be in the folder of another; 1 in .* are: cat/small"),
  ],
)
def test_images_whose_class_is_not_clear_are_refused(tmp_path, files, message):
  with pytest.raises(ValueError, match=message):
    image_listing.read(tree(tmp_path / "train", *files))


def test_links(tmp_path):
  root = tree(tmp_path / "train", "cat/1.png", "../store/dog/1.png", "../store/2.png")
  (root / "dog").symlink_to(tmp_path / "store" / "dog", target_is_directory=True)
  (root / "cat" / "2.png").symlink_to(tmp_path / "store" / "2.png")
  (root / "cat" / "around").symlink_to(root, target_is_directory=True)
  assert names(image_listing.read(root)) == {"cat": ["1.png", "2.png"], "dog": ["1.png"]}
  (root / "hound").symlink_to(root / "dog", target_is_directory=True)
  with pytest.raises(ValueError, match=r"classes must be different folders; in .* dog and hound are one, by a link"):
    image_listing.read(root)


def test_a_link_to_nothing_is_named(tmp_path):
  folders = image_files.write(tmp_path / "folders")
  path = sorted(folders.glob("train/*/*"))[0]
  path.unlink()
  path.symlink_to(tmp_path / "gone.png")
  with pytest.raises(ValueError, match=rf"1 image files cannot be read: .*{path.name}"):
    mini_imagenet.load(folders, tmp_path / "cache")


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path, monkeypatch):
  root, scan = tree(tmp_path / "train", "cat/1.png", "dog/1.png"), os.scandir

  def scandir(folder):
    if str(folder).endswith("dog"):
      raise PermissionError(13, "Permission denied", folder)
    return scan(folder)

  monkeypatch.setattr(os, "scandir", scandir)
  for read in (image_listing.read, store.fingerprint):
    with pytest.raises(PermissionError, match="dog"):
      read(root)


def test_a_name_in_no_encoding_is_read(tmp_path):
  root = tree(tmp_path / "train", "cat/1.png")
  (root / "cat" / "1.png").rename(os.fsdecode(os.fsencode(root / "cat") + b"/\xff.png"))
  assert names(image_listing.read(root)) == {"cat": ["\udcff.png"]} and store.fingerprint(root)


def clutter(root):
  """What notebooks, systems and tools leave in a data folder, of one class in each of two places."""
  for folder in sorted(root.glob("*/*")):
    shutil.copytree(folder, folder / ".ipynb_checkpoints")
    (folder / f"._{folder.name}00000000.png").write_bytes(b"Mac OS X        ")
    (folder / "Thumbs.db").write_bytes(b"")
  shutil.copytree(sorted(root.glob("train/*"))[0], root / "train" / ".trash")
  (root / "train" / "nothing").mkdir()
  return root


def test_an_image_set_among_clutter_is_the_set(tmp_path):
  clean = image_files.write(tmp_path / "clean")
  spoilt = clutter(shutil.copytree(clean, tmp_path / "spoilt"))
  expected, data = (mini_imagenet.load(root, tmp_path / "cache") for root in (clean, spoilt))
  assert data.split == expected.split and data.digest == expected.digest and not expected.notes
  for part, other in zip(data[:3], expected[:3], strict=True):
    np.testing.assert_array_equal(part, other)
  first = f"train/{RAVI.train[0]}"
  assert data.notes == (
    f"13 hidden files and folders were left out: train/.trash/, {first}/._{RAVI.train[0]}00000000.png, "
    f"{first}/.ipynb_checkpoints/ and others",
    f"6 files that are no images by their names were left out: {first}/Thumbs.db, train/{RAVI.train[1]}/Thumbs.db, "
    f"val/{RAVI.val[0]}/Thumbs.db and others",
    "1 folders without images were left out: train/nothing/",
  )


def test_a_set_of_ones_own_gains_no_class(tmp_path):
  rng = np.random.default_rng(0)
  for name in ("train/cat", "train/.ipynb_checkpoints", "val/owl", "test/fox", "test/fox/.git"):
    (tmp_path / "own" / name).mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "own" / name / "1.TIF")
  data = image_sets.load("own", published_set.Published("mine", ()), tmp_path / "own", tmp_path / "cache", size=8)
  assert data.split == splits.make_split(["cat"], ["owl"], ["fox"])
  assert data.notes == ("2 hidden files and folders were left out: train/.ipynb_checkpoints/, test/fox/.git/",)


def test_omniglot_gains_no_class(tmp_path):
  for name in ("Greek/character01", "Greek/.ipynb_checkpoints", "__MACOSX/Greek"):
    folder = tmp_path / "data" / "images_background" / name
    folder.mkdir(parents=True)
    Image.fromarray(np.arange(105 * 105).reshape(105, 105) % 7 > 0).save(folder / "1.png")
  data = omniglot.load(tmp_path / "data", tmp_path / "cache", download=False)
  assert data.names == ("Greek/character01",)
  where = "images_background"
  hidden = f"{where}/Greek/.ipynb_checkpoints/, {where}/__MACOSX/"
  assert data.notes == (f"2 hidden files and folders were left out: {hidden}",)


def test_a_zip_archive_from_a_mac_is_prepared_without_its_clutter(tmp_path, caplog):
  pytest.importorskip("tensorflow_datasets")
  clean = image_files.write(tmp_path / "clean")
  archive = tmp_path / "mini_imagenet.zip"
  with zipfile.ZipFile(archive, "w") as file:
    for path in sorted(clean.glob("*/*/*")):
      name = path.relative_to(clean)
      file.write(path, name)
      file.writestr(str("__MACOSX" / name.with_name(f"._{path.name}")), b"Mac OS X        ")
      file.writestr(str(name.with_name(f"._{path.name}")), b"Mac OS X        ")
  mini_imagenet.prepare(tmp_path / "out", archive)
  assert "18 hidden files and folders were left out: train/" in caplog.text
  data, expected = (mini_imagenet.load(root, tmp_path / "cache") for root in (tmp_path / "out", clean))
  assert data.counts == expected.counts and data.digest == expected.digest
  np.testing.assert_array_equal(data.test, expected.test)


def test_two_folders_of_one_split_are_refused(tmp_path):
  folders = image_files.write(tmp_path / "folders")
  shutil.copytree(folders / "val", folders / "valid")
  with pytest.raises(ValueError, match=r"must have one folder for each split; it has val and valid"):
    mini_imagenet.load(folders, tmp_path / "cache")


def test_an_unfinished_version_is_not_read(tmp_path):
  for version in ("1.0.0", "1.0.0.incompleteQ3", ".1.0.1"):
    tree(tmp_path, f"omniglot/{version}/dataset_info.json")
  assert tfds_files.version_dir(tmp_path, "omniglot") == tmp_path / "omniglot" / "1.0.0"
