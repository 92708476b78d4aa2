"""mini-ImageNet and tiered-ImageNet from image files: every shape gives the same pixels, every fault one error."""

from __future__ import annotations

import os
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.datasets import image_files
from warpjax.datasets import image_sets, mini_imagenet, splits, tiered_imagenet
from warpjax.datasets.store import DatasetNotFoundError
from warpjax.tasks import few_shot

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


def prepared(archives, out):
  mini_imagenet.prepare(out, archives)
  return out


def assert_pixel_exact(data, root):
  for part, names in zip(data[:3], data.split, strict=True):
    for array, wnid in zip(part, names, strict=True):
      np.testing.assert_array_equal(array, pixels(root, wnid))


SHAPES = {
  "split folders": lambda root, out: shutil.copytree(root, out),
  "class folders": image_files.to_class_folders,
  "csv": image_files.to_csv,
  "a folder above": lambda root, out: shutil.copytree(root, out / "miniImagenet").parent,
  "prepared": lambda root, out: prepared(root, out),
  "prepared from a zip": lambda root, out: prepared(image_files.to_zip(root, out / "mini_imagenet.zip").parent, out),
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
  monkeypatch.setattr(image_sets.decode, "decode", None)
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


def test_other_sizes_and_grey_images_are_told(folders, monkeypatch):
  assert load(folders).notes == ()  # nothing is said of images that are kept as they are
  Image.fromarray(np.full((30, 40), 7, np.uint8)).save(first(folders, "val"))
  Image.fromarray(np.zeros((84, 60, 3), np.uint8)).save(first(folders, "test"))
  whole = load(folders, resample="box")
  converted = "1 images were of mode L, converted to RGB"
  assert whole.notes == ("2 images were 40x30 to 60x84, resized to 84x84 by box", converted)
  data = load(folders, size=32)
  assert data.val.shape == (2, 3, 32, 32, 3)
  np.testing.assert_allclose(data.val[0, 0], 7, atol=1)
  assert data.notes == ("18 images were 40x30 to 84x84, resized to 32x32 by lanczos", converted)
  monkeypatch.setattr(image_sets.decode, "decode", None)
  assert load(folders, size=32).notes == data.notes  # from the cache


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
  (stray_image, r"images must be in a folder for each class; 1 in .*train are in none: stray\.png"),
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
  command = r"It is a file: unpack it first, or warpjax prepare mini_imagenet --archives=.*mini\.zip\."
  with pytest.raises(DatasetNotFoundError, match=command):
    mini_imagenet.load(tmp_path / "mini.zip", tmp_path / "cache")


def test_a_prepared_set_holds_the_files_bytes(folders, tmp_path):
  """As tensorflow-datasets reads it by name; a second preparation leaves it alone."""
  tfds = pytest.importorskip("tensorflow_datasets")
  path = first(folders, "val")
  Image.fromarray(np.full((30, 40), 7, np.uint8)).save(path.with_suffix(".jpg"))
  path.unlink()
  mini_imagenet.prepare(tmp_path, folders)
  mini_imagenet.prepare(tmp_path, None)
  raw = {"image": tfds.decode.SkipDecoding()}
  for part, of in (("train", "train"), ("val", "validation"), ("test", "test")):
    items = list(tfds.data_source("mini_imagenet", split=of, data_dir=tmp_path, decoders=raw))
    assert [item["image"] for item in items] == [file.read_bytes() for file in sorted(folders.glob(f"{part}/*/*"))]
    assert {RAVI.all[item["label"]] for item in items} == set(getattr(RAVI, part)[:2])
  by_name, version = load(tmp_path), mini_imagenet.load(tmp_path / "mini_imagenet" / "1.0.0", tmp_path / "cache")
  assert by_name[3:] == version[3:] == load(folders)[3:] and len(by_name.notes) == 2
  assert {path.name for path in tmp_path.iterdir()} == {"cache", "folders", "mini_imagenet"}


def spoilt_zip(root):
  """One member's bytes are changed, its checksum is not."""
  path = image_files.to_zip(root, root.parent / "spoilt.zip")
  data = bytearray(path.read_bytes())
  at = data.index(b"PNG")
  data[at : at + 3] = b"GNP"
  path.write_bytes(data)
  return path


def zip_of(path, **members):
  with zipfile.ZipFile(path, "w") as archive:
    for name, text in members.items():
      archive.writestr(name, text)
  return path


PREPARE_FAULTS = [
  (lambda root: None, FileNotFoundError, r"mini-ImageNet cannot be downloaded freely: pass --archives=DIR"),
  (lambda root: root / "absent", FileNotFoundError, r"was not found: looked in .*absent for .* --archives=DIR"),
  (lambda root: zip_of(root / "a.zip", cat="x"), FileNotFoundError, r"mini-ImageNet was not found: looked in .*a\.zip"),
  (lambda root: zip_of(root / "a.zip", **{"../cat": "x"}), ValueError, r"a\.zip must unpack inside its folder"),
  (spoilt_zip, ValueError, r"spoilt\.zip cannot be unpacked \(Bad CRC-32 .*\); fetch it again"),
  (lambda root: into_another_class(root) or root, ValueError, "1 image files are in the folder of another class"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), PREPARE_FAULTS)
def test_a_fault_in_what_is_prepared_is_one_error_and_nothing_is_kept(folders, tmp_path, spoil, error, message):
  with pytest.raises(error, match=message) as caught:
    mini_imagenet.prepare(tmp_path / "out", spoil(folders))
  assert "\n" not in str(caught.value) and not any((tmp_path / "out").glob("*"))


def test_a_page_in_place_of_an_archive_is_one_error(tmp_path):
  (tmp_path / "mini_imagenet.zip").write_text("<!DOCTYPE html><html>Sign in</html>")
  with pytest.raises(ValueError, match=r"mini_imagenet\.zip must be a zip archive; it is an HTML page"):
    mini_imagenet.prepare(tmp_path / "out", tmp_path)


def test_another_prepared_set_is_not_taken_for_this_one(folders, tmp_path):
  pytest.importorskip("tensorflow_datasets")
  mini_imagenet.prepare(tmp_path, folders)
  info = tmp_path / "mini_imagenet" / "1.0.0" / "features.json"
  info.write_text(info.read_text().replace("file_name", "id"))
  with pytest.raises(ValueError, match=r"must have the features file_name, image, label and .* got .*id"):
    load(tmp_path)


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
  for name in ("split folders", "class folders", "csv", "prepared"):
    root = SHAPES[name](SLICE, tmp_path / name.replace(" ", "_"))
    assert_pixel_exact(mini_imagenet.load(root, tmp_path / "cache"), SLICE)
