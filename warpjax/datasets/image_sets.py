"""Few-shot image sets from folders of files: in any usual layout, checked, one array for each split."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from warpjax.datasets import (
  archives,
  decode,
  image_listing,
  layouts,
  published_set,
  splits,
  store,
  tfds_files,
  tfds_images,
)
from warpjax.datasets.published_set import Published
from warpjax.datasets.store import DatasetNotFoundError, PathLike

PARTS = splits.Split._fields


class ImageSet(NamedTuple):
  """A data set as three arrays.

  Attributes:
    train: uint8 `[classes, examples, size, size, 3]`, memory-mapped. A class with fewer examples than the largest is
      padded with zeros; `counts` has the numbers of examples.
    val: The validation set, likewise.
    test: The test set, likewise.
    split: The names of the classes, in the order of the arrays' rows.
    counts: Examples of each class: a tuple for each of the three.
    missing: What is missing from the published set, in words; "" for a whole set.
    digest: The hash of the split: of the published class split for a whole set, of classes and file names otherwise.
    notes: Notes on the files: those left out, resized or converted, and images that occur twice.
  """

  train: np.ndarray
  val: np.ndarray
  test: np.ndarray
  split: splits.Split
  counts: tuple[tuple[int, ...], ...]
  missing: str
  digest: str
  notes: tuple[str, ...] = ()

  @property
  def partial(self) -> bool:
    """Whether classes or images of the published set are not there."""
    return bool(self.missing)


def load(
  name: str,
  published: Published,
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  size: int = 84,
  resample: decode.Resample = "lanczos",
  require_complete: bool = False,
) -> ImageSet:
  """Reads image files once, in threads, and from then on the arrays kept in the cache.

  Args:
    name: Starts the name of the folder in the cache.
    published: The facts of the published set.
    data_dir: The folder, or one that holds it: `{train,val,test}/<class>/*`, `<class>/*`, `{train,val,test}.csv`
      next to the images or a folder `images/`, or the output of `prepare`. None: `TFDS_DATA_DIR`.
    cache_dir: Where the arrays are kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    size: Height and width in pixels.
    resample: Pillow's filter, for images of another size.
    require_complete: Whether to refuse an incomplete set.

  Returns:
    An `ImageSet`.

  Raises:
    DatasetNotFoundError: if no folder has such a layout.
    ValueError: for a size below 1, an unknown filter, or files that are unreadable, misplaced, duplicated, or more
      than the set has; for an incomplete set if it must be complete.
  """
  decoder = decode.Decoder(size, "RGB", resample)
  decoder.check()
  shape, paths = _find(published, data_dir)
  settings = {"source": store.fingerprint(*paths), "shape": shape, "version": 3, **decoder._asdict()}

  def write(folder: pathlib.Path) -> dict[str, Any]:
    files, left_out = _read(shape, paths, published)
    written = _write(files, decoder, published, folder)
    return {**written, "notes": [*left_out, *written["notes"]]}

  arrays, about = store.load_or_write(name, settings, write, cache_dir)
  split = splits.make_split(**{part: list(about["counts"][part]) for part in PARTS})
  counts = tuple(tuple(about["counts"][part][label] for label in getattr(split, part)) for part in PARTS)
  missing = published_set.missing(split, counts, published)
  if missing and require_complete:
    raise ValueError(f"{published.title} must be whole (require_complete); {paths[0].parent} lacks {missing}.")
  digest = about["files_sha256"][:12] if missing else split.digest
  images = arrays["train"], arrays["val"], arrays["test"]
  return ImageSet(*images, split, counts, missing, digest, tuple(about["notes"]))


def prepare(name: str, published: Published, root: PathLike, archive: PathLike | None) -> None:
  """Prepares image files as a tensorflow-datasets data set, `root/<name>`, without re-encoding them.

  Args:
    name: Name of the data set.
    published: The facts of the published set; its class split numbers the labels.
    root: A tensorflow-datasets root.
    archive: A folder of a shape that `load` reads, one that holds it, a zip archive of one, or a folder with
      `<name>.zip`.

  Raises:
    DatasetNotFoundError: if none of them exists; the images cannot be downloaded.
    ValueError: if the file is not a zip archive or is damaged, or image files are misplaced, duplicated or too many.
  """
  assert published.split is not None  # the labels' names
  if there := tfds_files.version_dir(root, name):
    if archive:
      logging.warning("%s is there and is left as it is; remove it to prepare it again", there)
    return
  if not archive:
    raise DatasetNotFoundError(
      f"{published.title} cannot be downloaded freely: pass --archives=DIR, a folder of its images or a zip of one."
    )
  source = pathlib.Path(archive).expanduser()
  with contextlib.ExitStack() as stack:
    files_at = _look(published, _roots(published, source))
    zipped = [path for path in (source, source / f"{name}.zip") if path.is_file()]
    if not files_at and zipped:
      folder = stack.enter_context(archives.unpacked(zipped[0], root))
      inside = sorted(path for path in folder.iterdir() if path.is_dir() and not image_listing.is_hidden(path.name))
      files_at = _look(published, [folder, *inside])
    if not files_at:
      raise DatasetNotFoundError(published_set.absent(published, zipped or [source], "archives"))
    files, left_out = _read(*files_at, published)
    for note in left_out:
      logging.warning("Of %s: %s.", zipped[0] if zipped else source, note)
    tfds_images.prepare(root, name, files, published.split, title=published.title)


def _find(published: Published, data_dir: PathLike | None) -> tuple[str, list[pathlib.Path]]:
  given = data_dir or os.environ.get("TFDS_DATA_DIR")
  roots = _roots(published, pathlib.Path(given).expanduser() if given else None)
  if files_at := _look(published, roots):
    return files_at
  raise DatasetNotFoundError(published_set.absent(published, roots, "data_dir"))


def _roots(published: Published, top: pathlib.Path | None) -> list[pathlib.Path]:
  return [top, *(top / folder for folder in published.folders)] if top else []


def _look(published: Published, roots: Iterable[pathlib.Path]) -> tuple[str, list[pathlib.Path]] | None:
  return next(filter(None, (layouts.find(root, published.split) for root in roots)), None)


def _read(shape: str, paths: list[pathlib.Path], published: Published) -> tuple[layouts.Files, list[str]]:
  files, left_out = layouts.read(shape, paths, published.split)
  published_set.check_counts(files, published)
  return files, left_out


def _write(files: layouts.Files, decoder: decode.Decoder, published: Published, folder: pathlib.Path) -> dict[str, Any]:
  """Decodes every class into its row of a memory-mapped file, so that memory never holds a split."""
  seen: dict[bytes, layouts.File] = {}
  identical: list[tuple[layouts.File, layouts.File]] = []
  originals: collections.Counter[decode.Original] = collections.Counter()
  for part, classes in files.items():
    shape = (len(classes), max(map(len, classes.values())), decoder.size, decoder.size, len(decoder.mode))
    array = np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)
    # Class after class would leave threads idle at the end of each; a class with fewer images ends in zeros.
    flat = array.reshape(-1, *shape[2:])
    rows = [(i * shape[1] + j, path) for i, paths in enumerate(classes.values()) for j, path in enumerate(paths)]
    into: Any = _Rows(flat, [row for row, _ in rows])
    decode.decode([path for _, path in rows], decoder, into, originals)
    for row, path in rows:
      digest = hashlib.blake2b(flat[row].tobytes(), digest_size=16).digest()
      if (first := seen.setdefault(digest, path)) is not path:
        identical.append((first, path))
    array.flush()
  lines = [f"{part} {name} {path.stem}" for part, c in files.items() for name, paths in c.items() for path in paths]
  return {
    "counts": layouts.counts(files),
    "files_sha256": hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest(),
    "notes": [*decoder.notes(originals), *published_set.identical(identical, published)],
  }


class _Rows(NamedTuple):
  """Rows of an array under other numbers, to be written."""

  array: np.ndarray
  rows: Sequence[int]

  def __setitem__(self, index: int, image: np.ndarray) -> None:
    self.array[self.rows[index]] = image
