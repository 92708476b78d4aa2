"""Small made image sets under the names of real classes, in every shape on the disk."""

from __future__ import annotations

import csv
import pathlib
import shutil
import zipfile

import numpy as np
from PIL import Image

from warpjax.datasets import splits


def write(
  root: pathlib.Path, name: str = "mini_imagenet", classes: int = 2, count: int = 3, size: int = 84
) -> pathlib.Path:
  """`{train,val,test}/<wnid>/<wnid>NNNNNNNN.png`, the first classes of each split; every image has its own noise."""
  rng = np.random.default_rng(0)
  for part, names in splits.published(name)._asdict().items():
    for wnid in names[:classes]:
      folder = root / part / wnid
      folder.mkdir(parents=True)
      for i in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / f"{wnid}{i:08d}.png")
  return root


def to_class_folders(root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """The same images as `<wnid>/*`."""
  for folder in root.glob("*/*"):
    shutil.copytree(folder, out / folder.name)
  return out


def to_csv(root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """The same images as `images/*` and `{train,val,test}.csv`, in another order."""
  (out / "images").mkdir(parents=True)
  for part in ("train", "val", "test"):
    files = sorted((root / part).glob("*/*"), reverse=True)
    with open(out / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
      rows = csv.writer(file)
      rows.writerow(["filename", "label"])
      rows.writerows([path.name, path.parent.name] for path in files)
    for path in files:
      shutil.copy(path, out / "images")
  return out


def to_zip(root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """The same images as `mini_imagenet/{train,val,test}/<wnid>/*` in a zip archive."""
  out.parent.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(out, "w") as archive:
    for path in sorted(root.glob("*/*/*")):
      archive.write(path, "mini_imagenet" / path.relative_to(root))
  return out
