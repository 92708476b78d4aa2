"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from warpjax.datasets import archives, decode, image_listing, splits, store, tfds_images
from warpjax.datasets.store import DatasetNotFoundError, PathLike

PACKED = "omniglot_packed.npz"
"""The name of the whole set packed into one file, which is found in `data_dir`."""

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
      `images_background/<Alphabet>/characterNN/*.png` and `images_evaluation/...`, a folder
      `{train,val,test}/<class>/*`, or a folder with the file `PACKED`. `None`: `TFDS_DATA_DIR`, else
      tensorflow-datasets' own default.
    cache_dir: Where the resized array is kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    size: Height and width in pixels.
    resample: Pillow's filter. `"lanczos"` is iMAML's. `"nearest"` keeps two levels, as in Reptile, MAML and WarpGrad:
      their codes ask for Lanczos, which Pillow does not have for images of one bit.
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
  if not (sources := _sources(root)):
    _prepare(root, origin, download)
    sources = _sources(root)
  settings = {"source": store.fingerprint(*sources), "invert": invert, "version": 2, **decoder._asdict()}
  make = lambda: _make(root, sources, decoder, invert)
  arrays, metadata = store.load_or_make("omniglot", settings, make, cache_dir)
  names = tuple(metadata["names"])
  split = (
    splits.make_split(**{f.name: image_listing.read(f).classes for f in sources}) if decode.has_splits(root) else None
  )
  alphabets = tuple(map(splits.alphabet_of, names))
  return Omniglot(arrays["images"], names, alphabets, split, tuple(metadata["notes"]))


def is_in(data_dir: PathLike | None = None) -> bool:
  """Whether `load` finds the set there; no image is read."""
  return bool(_sources(_root(data_dir)[0]))


def _root(data_dir: PathLike | None) -> tuple[pathlib.Path, str]:
  """The folder to look in, and where its name comes from."""
  choices = {
    "data_dir": data_dir,
    "TFDS_DATA_DIR": os.environ.get("TFDS_DATA_DIR"),
    "tensorflow-datasets' default": "~/tensorflow_datasets",
  }
  origin, root = next((name, value) for name, value in choices.items() if value)
  root = pathlib.Path(root).expanduser().absolute()
  # A person may pass `.../omniglot/3.0.0`; tensorflow-datasets needs the folder above both.
  return (root.parents[1] if (root / "dataset_info.json").is_file() else root), origin


def pack(root: PathLike, source: PathLike | None = None) -> None:
  """Packs Omniglot into the file `PACKED` in `root`, of a few MB, which needs no tensorflow-datasets to be read.

  Args:
    root: The folder, made if it does not exist.
    source: Any other `data_dir` of `load`; `None` for `TFDS_DATA_DIR`, else tensorflow-datasets' own default.

  Raises:
    DatasetNotFoundError: when `source` holds no Omniglot.
    ValueError: for images that are not of one bit.
  """
  folder, origin = _root(source)
  sources = _sources(folder)
  if not sources or decode.has_splits(folder):
    raise DatasetNotFoundError(f"Omniglot, as published, was not found in {folder} (from {origin}), so none is packed.")
  pathlib.Path(root).mkdir(parents=True, exist_ok=True)
  read = lambda file: file if isinstance(file, bytes) else file.read_bytes()
  files = sorted(_files(folder, sources)[0].items())
  archives.pack_drawings(pathlib.Path(root, PACKED), {name: [read(each) for each in group] for name, group in files})


def _sources(root: pathlib.Path) -> list[pathlib.Path]:
  """The folders or the file under `root` that hold the set; none if it is absent."""
  if decode.has_splits(root):
    return [root / name for name in decode.SPLITS]
  folders = [root / name for name in ("images_background", "images_evaluation") if (root / name).is_dir()]
  packed = [root / PACKED] if (root / PACKED).is_file() else []
  return folders or packed or ([root / "omniglot"] if tfds_images.has_omniglot(root) else [])


def _files(
  root: pathlib.Path, sources: Sequence[pathlib.Path]
) -> tuple[Mapping[str, Sequence[bytes | decode.File]], list[str]]:
  """The image files of each class, and notes on files left out."""
  if sources == [root / PACKED]:
    return archives.unpack_drawings(sources[0]), []
  if sources == [root / "omniglot"]:
    return tfds_images.read_omniglot(root), []
  listings = [image_listing.read(folder) for folder in sources]
  return {name: files for listing in listings for name, files in listing.classes.items()}, image_listing.notes(listings)


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
    f" images_background/<Alphabet>/characterNN/*.png, for {{train,val,test}}/<class>/*, and for {PACKED}."
    " To prepare it where there is internet: warpjax prepare omniglot --data_dir=DIR;"
    " from the four archives: the same with --archives=FOLDER. Then pass --data_dir=DIR or set TFDS_DATA_DIR=DIR."
  )


def _make(
  root: pathlib.Path, sources: Sequence[pathlib.Path], decoder: decode.Decoder, invert: bool
) -> tuple[store.Arrays, Any]:
  """Classes by name, examples by a hash of their pixels, since prepared records do not have the drawer."""
  originals: collections.Counter[decode.Original] = collections.Counter()
  files, notes = _files(root, sources)
  names = sorted(files)
  rows = []
  for images in decode.read([files[name] for name in names], decoder, originals):
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    rows.append(images[sorted(range(len(digests)), key=digests.__getitem__)])
  originals.pop(_PUBLISHED, None)
  array = np.stack(rows)
  return {"images": 255 - array if invert else array}, {
    "names": names,
    "notes": [*notes, *decoder.notes(originals)],
  }
