"""mini-ImageNet and tiered-ImageNet from image files: every shape gives the same pixels, every fault one error."""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.tasks import image_files
from warpjax.tasks import DatasetNotFoundError, few_shot, image_sets, mini_imagenet, splits, tiered_imagenet

RAVI = splits.published("mini_imagenet")
SLICE = pathlib.Path(os.environ.get("MINI_IMAGENET_DIR", "/nowhere"))


@pytest.fixture
def folders(tmp_path):
  return image_files.write(tmp_path / "folders")


def load(root, **kw):
  return mini_imagenet.load(root, root.parent / "cache", **kw)


def pixels(root, wnid):
  return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(root.glob(f"*/{wnid}/*"))])


def first(root, part):
  return sorted(root.glob(f"{part}/*/*"))[0]


def assert_pixel_exact(data, root):
  for part, names in zip(data[:3], data.split, strict=True):
    for array, wnid in zip(part, names, strict=True):
      np.testing.assert_array_equal(array, pixels(root, wnid))


SHAPES = {
  "split folders": lambda root, out: shutil.copytree(root, out),
  "class folders": image_files.to_class_folders,
  "csv": image_files.to_csv,
  "a folder above": lambda root, out: shutil.copytree(root, out / "miniImagenet").parent,
  "valid for val": lambda root, out: shutil.move(shutil.copytree(root, out) / "val", out / "valid").parent,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_pixels(folders, tmp_path, shape):
  data = load(SHAPES[shape](folders, tmp_path / "shape"))
  assert data.split == splits.make_split(RAVI.train[:2], RAVI.val[:2], RAVI.test[:2])
  assert data.train.shape == (2, 3, 84, 84, 3) and data.train.dtype == np.uint8 and isinstance(data.train, np.memmap)
  assert_pixel_exact(data, folders)
  assert data.digest == load(folders).digest  # the same part of the set, whatever its shape
  few_shot.sampler(data.train, ways=2, shots=1, queries=1)


def test_the_second_load_reads_the_cache(folders, monkeypatch):
  first = load(folders)
  monkeypatch.setattr(image_sets.image_folder, "decode", None)
  again = load(folders)
  assert again[3:] == first[3:]
  np.testing.assert_array_equal(again.train, first.train)


def test_a_part_of_the_set_says_so(folders):
  data = load(folders)
  assert data.partial and "62 of 64 train classes" in data.missing and "1194 of 1200 train images" in data.missing
  assert data.digest not in (RAVI.digest, data.split.digest)
  with pytest.raises(ValueError, match=r"mini-ImageNet must be whole \(require_complete\); .* lacks 62 of 64 train"):
    load(folders, require_complete=True)


def test_another_image_is_another_digest(folders):
  before = load(folders).digest
  path = first(folders, "train")
  path.rename(path.with_name(path.name.replace("00000000", "00000009")))
  assert load(folders).digest != before


def test_other_sizes_and_grey_images(folders):
  Image.fromarray(np.full((30, 40), 7, np.uint8)).save(first(folders, "val"))
  data = load(folders, size=32)
  assert data.val.shape == (2, 3, 32, 32, 3)
  np.testing.assert_allclose(data.val[0, 0], 7, atol=1)


def test_classes_of_other_sizes_end_in_zeros_and_are_counted(folders):
  sorted((folders / "train" / RAVI.train[1]).iterdir())[-1].unlink()
  data = load(folders)
  assert data.counts == ((3, 2), (3, 3), (3, 3)) and not data.train[1, 2].any()
  np.testing.assert_array_equal(data.train[1, :2], pixels(folders, RAVI.train[1]))


def truncate(root):
  path = root / "train" / RAVI.train[0] / f"{RAVI.train[0]}00000001.png"
  path.write_bytes(path.read_bytes()[:900])


def empty(root):
  (root / "val" / RAVI.val[0] / f"{RAVI.val[0]}00000001.png").write_bytes(b"")


def into_another_class(root):
  shutil.move(root / "train" / RAVI.train[0] / f"{RAVI.train[0]}00000001.png", root / "train" / RAVI.train[1])


def into_another_split(root):
  shutil.move(root / "test" / RAVI.test[0], root / "train")


def copied_within_its_class(root):
  folder = root / "train" / RAVI.train[0]
  shutil.copy(folder / f"{RAVI.train[0]}00000001.png", folder / "copy.png")


def copied_as_another_class(root):
  source = root / "test" / RAVI.test[0] / f"{RAVI.test[0]}00000001.png"
  shutil.copy(source, root / "train" / RAVI.train[0] / f"{RAVI.train[0]}00000077.png")


def strange_class(root):
  shutil.copytree(root / "train" / RAVI.train[0], root / "train" / "dogs")


def class_in_two_splits(root):
  shutil.copytree(root / "train" / RAVI.train[0], root / "val" / RAVI.train[0])


def stray_image(root):
  shutil.copy(first(root, "train"), root / "train" / "stray.png")


def too_many(root):
  folder = root / "train" / RAVI.train[0]
  for i in range(3, 602):
    (folder / f"{RAVI.train[0]}{i:08d}.png").touch()


def empty_split(root):
  shutil.rmtree(root / "val")
  (root / "val").mkdir()


FAULTS = [
  (truncate, r"1 image files cannot be read: .*n0153282900000001\.png \("),
  (empty, r"1 image files cannot be read: .*n0185567200000001\.png \("),
  (into_another_class, r"1 image files are in the folder of another class: n01558993/n0153282900000001\.png"),
  (
    into_another_split,
    r"1 classes are in another split than the published one has them in: n01930112 in train, of test",
  ),
  (copied_within_its_class, r"1 pairs of files are the same image twice, pixel by pixel: .*copy\.png"),
  (copied_as_another_class, r"1 pairs of files are the same image twice, .*n0193011200000001\.png"),
  (strange_class, r"1 classes are none of the 100 of this set: train/dogs"),
  (class_in_two_splits, r"must be disjoint; 1 names occur twice, such as 'n01532829'"),
  (stray_image, r"1 classes are none of the 100 of this set: train/\."),
  (too_many, r"1 classes have more than the 600 images of the set: train/n01532829 has 602"),
  (empty_split, r"every split must have a class; val has none"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_fault_is_one_error_and_nothing_is_kept(folders, spoil, message):
  spoil(folders)
  with pytest.raises(ValueError, match=message) as caught:
    load(folders)
  assert "\n" not in str(caught.value)
  assert not any((folders.parent / "cache").glob("*"))


CSV_FAULTS = [
  (
    "train",
    lambda text: text + "n0153282900000099.png,n01532829\n",
    r"1 image files .*are listed and not there: train",
  ),
  ("train", lambda text: text + text.splitlines()[1] + "\n", r"1 image files are there twice"),
  (
    "val",
    lambda text: text.replace(f",{RAVI.val[0]}", f",{RAVI.val[1]}"),
    r"3 image files are listed under another cl",
  ),
  ("val", lambda text: "filename,label\n", r"val\.csv must have lines 'filename,label'"),
]


@pytest.mark.parametrize(("part", "change", "message"), CSV_FAULTS)
def test_a_faulty_list_is_one_error(folders, tmp_path, part, change, message):
  root = image_files.to_csv(folders, tmp_path / "csv")
  path = root / f"{part}.csv"
  path.write_text(change(path.read_text().replace("\r\n", "\n")))
  with pytest.raises(ValueError, match=message):
    load(root)


def test_images_that_the_published_set_has_twice_are_fine(folders):
  for name in ("n0209183100000748", "n0209183100001256"):
    (folders / "train" / "n02091831").mkdir(exist_ok=True)
    shutil.copy(first(folders, "train"), folders / "train" / "n02091831" / f"{name}.png")
  first(folders, "train").unlink()
  assert load(folders).notes == ("1 images occur twice, as in the published set",)


@pytest.mark.parametrize("given", [True, False])
def test_an_absent_set_is_one_message(tmp_path, monkeypatch, given):
  monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
  where = str(tmp_path) if given else "neither data_dir nor TFDS_DATA_DIR is set"
  with pytest.raises(DatasetNotFoundError, match="mini-ImageNet was not found") as caught:
    mini_imagenet.load(tmp_path if given else None, tmp_path / "cache")
  assert where in str(caught.value) and "--data_dir=DIR" in str(caught.value)


def test_an_archive_is_to_be_unpacked(tmp_path):
  (tmp_path / "mini.zip").touch()
  with pytest.raises(DatasetNotFoundError, match="It is a file: unpack it first"):
    mini_imagenet.load(tmp_path / "mini.zip", tmp_path / "cache")


def test_tiered_imagenet_has_its_own_split(tmp_path):
  root = image_files.write(tmp_path / "tiered", "tiered_imagenet", count=2, size=20)
  first(root, "train").unlink()
  data = tiered_imagenet.load(root, tmp_path / "cache", size=20)
  assert data.train.shape == (2, 2, 20, 20, 3) and sum(data.counts[0]) == 3
  assert data.missing == "349 of 351 train classes, 95 of 97 val classes, 158 of 160 test classes"


def test_a_set_of_ones_own_keeps_the_split_of_its_folders(tmp_path):
  for name in ("train/cat", "train/dog", "val/owl", "test/fox"):
    (tmp_path / "own" / name).mkdir(parents=True)
    noise = np.random.default_rng(len(name) + ord(name[-1])).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "own" / name / "1.png")
  data = image_sets.load("own", image_sets.Published("my set", ()), tmp_path / "own", tmp_path / "cache", size=8)
  assert data.split == splits.make_split(["cat", "dog"], ["owl"], ["fox"]) and not data.partial


@pytest.mark.skipif(not (SLICE / "train").is_dir(), reason="MINI_IMAGENET_DIR names no folder of real images")
def test_real_images_through_every_shape(tmp_path):
  for name, make in list(SHAPES.items())[:3]:
    root = make(SLICE, tmp_path / name.replace(" ", "_"))
    assert_pixel_exact(mini_imagenet.load(root, tmp_path / "cache"), SLICE)
