"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from warpjax.datasets import decode, image_listing, splits, store, tfds_images
from warpjax.datasets.store import DatasetNotFoundError, PathLike

_PUBLISHED = decode.Original((105, 105), "1")


class Omniglot(NamedTuple):
  """The data set as one array.

  Attributes:
    images: uint8 `[classes, examples, size, size, 1]`, memory-mapped; `[1623, 20, 28, 28, 1]` for the whole set.
    names: The class of each row, `"Alphabet/characterNN"`, sorted.
    alphabets: The alphabet of each row.
    split: The split of a folder `{train,val,test}/<class>/*`; otherwise None.
    notes: Notes on the files that are not 105x105 and of one bit, as published.
  """

  images: np.ndarray
  names: tuple[str, ...]
  alphabets: tuple[str, ...]
  split: splits.Split | None = None
  notes: tuple[str, ...] = ()


def load(
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  size: int = 28,
  resample: decode.Resample = "lanczos",
  invert: bool = True,
  download: bool = True,
) -> Omniglot:
  """Omniglot, resized, from a prepared tensorflow-datasets root or from a folder of images, without TensorFlow.

  The order of the examples of a class only depends on their pixels, so that every source gives the same array.

  Args:
    data_dir: A prepared tensorflow-datasets root, a folder with the upstream trees
      `images_background/<Alphabet>/characterNN/*.png` and `images_evaluation/...`, or a folder
      `{train,val,test}/<class>/*`. `None`: `TFDS_DATA_DIR`, else tensorflow-datasets' own default.
    cache_dir: Where the resized array is kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    size: Height and width in pixels.
    resample: Pillow's filter: `"lanczos"` as iMAML, `"nearest"` keeps two levels, as Reptile, MAML and WarpGrad, whose
      codes ask for Lanczos, which Pillow does not have for images of one bit.
    invert: Ink 255 on 0, as MAML; False for ink 0 on 255, as iMAML and Reptile.
    download: Whether tensorflow-datasets prepares an absent set under `data_dir`, if there is a network.

  Returns:
    An `Omniglot`.

  Raises:
    DatasetNotFoundError: at once, when the set is absent and cannot be fetched.
    ValueError: for a size below 1, an unknown filter, or classes with different numbers of images.

  Example:
    >>> load("/nowhere", download=False)
    Traceback (most recent call last):
      ...
    warpjax.datasets.store.DatasetNotFoundError: Omniglot was not found in /nowhere...

  Reference:
    Lake, Salakhutdinov, Tenenbaum 2015, Science 350(6266).
  """
  decoder = decode.Decoder(size, "L", resample)
  decoder.check()
  root, origin = _root(data_dir)
  folders = _raw_folders(root)
  if not folders and not tfds_images.has_omniglot(root):
    _prepare(root, origin, download)
  sources = folders or [root / "omniglot"]
  settings = {"source": store.fingerprint(*sources), "invert": invert, "version": 2, **decoder._asdict()}
  make = lambda: _make(root, folders, decoder, invert)
  arrays, metadata = store.load_or_make("omniglot", settings, make, cache_dir)
  names = tuple(metadata["names"])
  split = (
    splits.make_split(**{f.name: image_listing.read(f).classes for f in folders}) if decode.has_splits(root) else None
  )
  alphabets = tuple(map(splits.alphabet_of, names))
  return Omniglot(arrays["images"], names, alphabets, split, tuple(metadata["notes"]))


def _root(data_dir: PathLike | None) -> tuple[pathlib.Path, str]:
  """Where to look, and who said so."""
  choices = {
    "data_dir": data_dir,
    "TFDS_DATA_DIR": os.environ.get("TFDS_DATA_DIR"),
    "tensorflow-datasets' default": "~/tensorflow_datasets",
  }
  origin, root = next((name, value) for name, value in choices.items() if value)
  root = pathlib.Path(root).expanduser().absolute()
  # A person may pass `.../omniglot/3.0.0`; tensorflow-datasets needs the folder above both.
  return (root.parents[1] if (root / "dataset_info.json").is_file() else root), origin


def _raw_folders(root: pathlib.Path) -> list[pathlib.Path]:
  if decode.has_splits(root):
    return [root / name for name in decode.SPLITS]
  return [root / name for name in ("images_background", "images_evaluation") if (root / name).is_dir()]


def _prepare(root: pathlib.Path, origin: str, download: bool) -> None:
  reason = "download is off"
  if download:
    try:
      return tfds_images.prepare_omniglot(root)
    except ConnectionError as error:
      reason = str(error)
  raise DatasetNotFoundError(
    f"Omniglot was not found in {root} (from {origin}), and was not fetched: {reason}."
    " Looked for omniglot/<version>/ as tensorflow-datasets prepares it, for"
    " images_background/<Alphabet>/characterNN/*.png, and for {train,val,test}/<class>/*."
    " To prepare it where there is internet: warpjax prepare omniglot --data_dir=DIR;"
    " from the four archives: the same with --archives=FOLDER. Then pass --data_dir=DIR or set TFDS_DATA_DIR=DIR."
  )


def _make(
  root: pathlib.Path, folders: list[pathlib.Path], decoder: decode.Decoder, invert: bool
) -> tuple[store.Arrays, Any]:
  """Classes by name, examples by a hash of their pixels, since prepared records do not have the drawer."""
  originals: collections.Counter[decode.Original] = collections.Counter()
  if folders:
    listings = [image_listing.read(folder) for folder in folders]
    files = [item for listing in listings for item in listing.classes.items()]
    names, images = [name for name, _ in files], decode.read([paths for _, paths in files], decoder, originals)
    notes = image_listing.notes(listings)
  else:
    (names, images), notes = tfds_images.read_omniglot(root, decoder, originals), []
  originals.pop(_PUBLISHED, None)
  rows = []
  for index in np.argsort(names):
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images[index]]
    rows.append(images[index][sorted(range(len(digests)), key=digests.__getitem__)])
  array = np.stack(rows)
  return {"images": 255 - array if invert else array}, {
    "names": sorted(names),
    "notes": [*notes, *decoder.notes(originals)],
  }
