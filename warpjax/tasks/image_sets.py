"""Few-shot image sets from folders of files: found in any usual shape, checked, kept as one array for each split."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from warpjax.tasks import cache, image_folder, image_shapes, splits
from warpjax.tasks.cache import DatasetNotFoundError, PathLike

PARTS = splits.Split._fields


class ImageSet(NamedTuple):
  """A data set as three arrays.

  Attributes:
    train: uint8 `[classes, examples, size, size, 3]`, memory-mapped. A class with fewer examples than the largest ends
      in zeros; `counts` says where.
    val: Likewise.
    test: Likewise.
    split: The names of the classes, in the order of the arrays' rows.
    counts: Examples of each class: a tuple for each of the three.
    missing: What the published set has and this does not, in words; "" for a whole set.
    digest: The hash of the split: of the published class split for a whole set, of classes and file names otherwise.
    notes: What a reader should know of the files: images that were resized, images that occur twice.
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


class Published(NamedTuple):
  """What is known of a set.

  Attributes:
    title: Its name in messages.
    folders: Names of a folder with it under the data folder.
    split: The class split; None takes that of the folders.
    per_class: Images of each class; None where classes differ.
    totals: Images of each split.
    identical: Pairs of file names, without suffix, whose images are the same in the published set; None where nobody
      has listed them, and then such pairs are counted and not refused.
  """

  title: str
  folders: tuple[str, ...]
  split: splits.Split | None = None
  per_class: int | None = None
  totals: tuple[int, int, int] | None = None
  identical: frozenset[frozenset[str]] | None = None


def load(
  name: str,
  published: Published,
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  size: int = 84,
  resample: image_folder.Resample = "lanczos",
  require_complete: bool = False,
) -> ImageSet:
  """Reads image files once, in threads, and from then on the arrays kept in the cache.

  Args:
    name: Starts the name of the folder in the cache.
    published: What the set should be.
    data_dir: The folder, or one that holds it: `{train,val,test}/<class>/*`, `<class>/*`, or `{train,val,test}.csv`
      beside the images or a folder `images/`. None: `TFDS_DATA_DIR`.
    cache_dir: Where the arrays are kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    size: Height and width in pixels.
    resample: Pillow's filter, for images of another size.
    require_complete: Refuse a part of the set.

  Returns:
    An `ImageSet`.

  Raises:
    DatasetNotFoundError: when there is no folder of such a shape.
    ValueError: for a size below 1, an unknown filter, or files that are unreadable, misplaced, there twice, or more
      than the set has; for a part of the set where it must be whole.
  """
  decoder = image_folder.Decoder(size, "RGB", resample)
  decoder.check()
  shape, paths = _find(published, data_dir)
  settings = {"source": cache.fingerprint(*paths), "shape": shape, "version": 1, **decoder._asdict()}

  def write(folder: pathlib.Path) -> dict[str, Any]:
    files = image_shapes.read(shape, paths, published.split)
    _check_counts(files, published)
    return _write(files, decoder, published, folder)

  arrays, found = cache.load_or_write(name, settings, write, cache_dir)
  split = splits.make_split(**{part: list(found["counts"][part]) for part in PARTS})
  counts = tuple(tuple(found["counts"][part][label] for label in getattr(split, part)) for part in PARTS)
  missing = _missing(split, counts, published)
  if missing and require_complete:
    raise ValueError(f"{published.title} must be whole (require_complete); {paths[0].parent} lacks {missing}.")
  digest = found["files_sha256"][:12] if missing else split.digest
  images = arrays["train"], arrays["val"], arrays["test"]
  return ImageSet(*images, split, counts, missing, digest, tuple(found["notes"]))


def _find(published: Published, data_dir: PathLike | None) -> tuple[str, list[pathlib.Path]]:
  given = data_dir or os.environ.get("TFDS_DATA_DIR")
  top = pathlib.Path(given).expanduser() if given else None
  roots = [top, *(top / folder for folder in published.folders)] if top else []
  for root in roots:
    if found := image_shapes.find(root, published.split):
      return found
  where = " and ".join(map(str, roots)) or "no folder: neither data_dir nor TFDS_DATA_DIR is set"
  archive = " It is a file: unpack it first." if top and top.is_file() else ""
  classes = f" of the {len(published.split.all)} classes" if published.split else ""
  raise DatasetNotFoundError(
    f"{published.title} was not found: looked in {where} for {{train,val,test}}/<class>/*, for <class>/*{classes}, and "
    f"for train.csv, val.csv and test.csv beside the images or images/.{archive} It cannot be downloaded freely: put "
    "the images into one of these shapes and pass --data_dir=DIR."
  )


def _check_counts(files: image_shapes.Files, published: Published) -> None:
  counts = {f"{part}/{name}": n for part, names in image_shapes.counts(files).items() for name, n in names.items()}
  if published.per_class:
    more = [f"{name} has {n}" for name, n in counts.items() if n > published.per_class]
    image_shapes.complain(f"have more than the {published.per_class} images of the set", more, what="classes")
  elif published.totals is None and len(set(counts.values())) != 1:
    lowest, highest = min(counts.values()), max(counts.values())
    raise ValueError(f"every class must have the same number of images; found {lowest} to {highest} images per class")


def _write(
  files: image_shapes.Files, decoder: image_folder.Decoder, published: Published, folder: pathlib.Path
) -> dict[str, Any]:
  """Decodes every class into its row of a memory-mapped file, so that memory never holds a split."""
  seen: dict[bytes, pathlib.Path] = {}
  identical: list[tuple[pathlib.Path, pathlib.Path]] = []
  for part, classes in files.items():
    shape = (len(classes), max(map(len, classes.values())), decoder.size, decoder.size, len(decoder.mode))
    array = np.lib.format.open_memmap(folder / f"{part}.npy", mode="w+", dtype=np.uint8, shape=shape)
    # Class after class would leave threads idle at the end of each; a class with fewer images ends in zeros.
    flat = array.reshape(-1, *shape[2:])
    rows = [(i * shape[1] + j, path) for i, paths in enumerate(classes.values()) for j, path in enumerate(paths)]
    image_folder.decode([path for _, path in rows], decoder, _Rows(flat, [row for row, _ in rows]))  # type: ignore[arg-type]
    for row, path in rows:
      digest = hashlib.blake2b(flat[row].tobytes(), digest_size=16).digest()
      if (first := seen.setdefault(digest, path)) is not path:
        identical.append((first, path))
    array.flush()
  lines = [f"{part} {name} {path.stem}" for part, c in files.items() for name, paths in c.items() for path in paths]
  return {
    "counts": image_shapes.counts(files),
    "files_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    "notes": _identical(identical, published),
  }


class _Rows(NamedTuple):
  """Rows of an array under other numbers, to be written."""

  array: np.ndarray
  rows: Sequence[int]

  def __setitem__(self, index: int, image: np.ndarray) -> None:
    self.array[self.rows[index]] = image


def _identical(pairs: list[tuple[pathlib.Path, pathlib.Path]], published: Published) -> list[str]:
  """Refuses images that occur twice where the published set is known not to have them so; else a note."""
  if published.identical is not None:
    known = [pair for pair in pairs if frozenset(path.stem for path in pair) in published.identical]
    new = [f"{a.parent.name}/{a.name} and {b.parent.name}/{b.name}" for a, b in pairs if (a, b) not in known]
    image_shapes.complain("are the same image twice, pixel by pixel", new, what="pairs of files")
  if not pairs:
    return []
  known_or_not = "as" if published.identical is not None else "nobody has listed whether"
  return [f"{len(pairs)} images occur twice, {known_or_not} in the published set"]


def _missing(split: splits.Split, counts: Any, published: Published) -> str:
  if published.split is None:
    return ""
  lacks = []
  for part, numbers, total in zip(PARTS, counts, published.totals or (0, 0, 0), strict=True):
    official, mine = getattr(published.split, part), getattr(split, part)
    if len(mine) < len(official):
      lacks.append(f"{len(official) - len(mine)} of {len(official)} {part} classes")
    whole = published.per_class * len(mine) if published.per_class else total
    if sum(numbers) < whole and (published.per_class or len(mine) == len(official)):
      lacks.append(f"{whole - sum(numbers)} of {whole} {part} images")
  return ", ".join(lacks)
