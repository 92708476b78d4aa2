"""The usual layouts of a few-shot image set on the disk, and the checks of the files in one."""

from __future__ import annotations

import collections
import csv
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from warpjax.datasets import image_listing, splits, tfds_images
from warpjax.datasets.store import PathLike

File = tfds_images.File
Files = Mapping[str, Mapping[str, Sequence[File]]]
"""Image files by split ("train", "val", "test") and class, both sorted."""

Read = tuple[Files, list[image_listing.Listing]]

# Other names of the validation split.
_NAMES = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_WNID = re.compile(r"n\d{8}")


def find(root: PathLike, official: splits.Split | None) -> tuple[str, list[pathlib.Path]] | None:
  """Which shape a folder has, and what its content depends on.

  Args:
    root: The folder.
    official: The set's split; a folder for each class can only be told by it.

  Returns:
    `"prepared"` (`<version>/dataset_info.json`, by tensorflow-datasets), `"split folders"`
    (`{train,val,test}/<class>/*`), `"csv"` (`{train,val,test}.csv` next to the images) or `"class folders"`
    (`<class>/*`), with the paths to be read; None for a folder of another layout.

  Raises:
    ValueError: for a folder with two folders of one split, such as `val` and `valid`.
  """
  root = pathlib.Path(root)
  if prepared := tfds_images.find(root):
    return "prepared", [prepared]
  folders = {part: _first(root / name for name in names) for part, names in _NAMES.items()}
  for names in _NAMES.values():
    if len(there := [name for name in names if (root / name).is_dir()]) > 1:
      raise ValueError(f"{root} must have one folder for each split; it has {' and '.join(there)}.")
  if all(folders.values()):
    return "split folders", [path for path in folders.values() if path]
  lists = {part: _first((root / f"{name}.csv" for name in names), directory=False) for part, names in _NAMES.items()}
  if all(lists.values()):
    return "csv", [*(path for path in lists.values() if path), root / "images" if (root / "images").is_dir() else root]
  if official and any((root / name).is_dir() for name in official.all):
    return "class folders", [root]
  return None


def read(shape: str, paths: list[pathlib.Path], official: splits.Split | None) -> tuple[Files, list[str]]:
  """The image files of `find`, checked by their names, and the files left out, in words.

  Raises:
    ValueError: For misplaced or duplicated files, a class that is not in the set, or files that a
      list names and that do not exist; one error names all of them.
  """
  files, listings = _READERS[shape](paths, official)
  _check_places(files, official, shape == "csv")
  return files, image_listing.notes(listings) if listings else []


def _prepared(paths: list[pathlib.Path], official: splits.Split | None) -> Read:
  del official
  return tfds_images.read(paths[0]), []


def _split_folders(paths: list[pathlib.Path], official: splits.Split | None) -> Read:
  del official
  listings = [image_listing.read(path) for path in paths]
  return {part: listing.classes for part, listing in zip(_NAMES, listings, strict=True)}, listings


def _class_folders(paths: list[pathlib.Path], official: splits.Split | None) -> Read:
  assert official is not None  # `find` needs it for this shape
  listing = image_listing.read(paths[0])
  part_of = {name: part for part, names in official._asdict().items() for name in names}
  files: dict[str, dict[str, list[pathlib.Path]]] = {part: {} for part in _NAMES}
  for name, images in listing.classes.items():
    # A class of no part is put in the first, where the check of places reports it.
    files[part_of.get(name, "train")][name] = images
  return files, [listing]


def _csv(paths: list[pathlib.Path], official: splits.Split | None) -> Read:
  del official
  *lists, images = paths
  files: dict[str, dict[str, list[pathlib.Path]]] = {}
  missing = []
  for part, path in zip(_NAMES, lists, strict=True):
    by_class: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for name, label in _rows(path):
      file = next((f for f in (images / name, images / label / name) if f.is_file()), None)
      if file is None:
        missing.append(f"{path.name}: {name}")
      else:
        by_class[label].append(file)
    files[part] = {label: sorted(by_class[label]) for label in sorted(by_class)}
  complain("are listed and not there", missing, images, some=sum(len(f) for p in files.values() for f in p.values()))
  return files, []


def _rows(path: pathlib.Path) -> list[tuple[str, str]]:
  with open(path, newline="", encoding="utf-8-sig") as file:
    rows = [tuple(cell.strip() for cell in row[:2]) for row in csv.reader(file) if row]
  if rows and rows[0] == ("filename", "label"):
    rows = rows[1:]
  if not rows or any(len(row) != 2 for row in rows):
    raise ValueError(f"{path} must have lines 'filename,label', under a header of those two words or none.")
  return [(row[0], row[1]) for row in rows]


_READERS: dict[str, Callable[[list[pathlib.Path], splits.Split | None], Read]] = {
  "prepared": _prepared,
  "split folders": _split_folders,
  "class folders": _class_folders,
  "csv": _csv,
}


def _check_places(files: Files, official: splits.Split | None, listed: bool) -> None:
  if empty := [part for part, classes in files.items() if not classes]:
    raise ValueError(f"every split must have a class; {' and '.join(empty)} has none.")
  splits.make_split(**files)
  if official:
    part_of = {name: part for part, names in official._asdict().items() for name in names}
    strange = [f"{part}/{name}" for part, classes in files.items() for name in classes if name not in part_of]
    complain(f"are none of the {len(part_of)} of this set", strange, what="classes")
    wrong = [
      f"{name} in {part}, of {part_of[name]}"
      for part, classes in files.items()
      for name in classes
      if part_of[name] != part
    ]
    complain("are in another split than the published one has them in", wrong, what="classes")
  seen: dict[str, File] = {}
  misplaced, twice = [], []
  for name, paths in _classes(files):
    for path in paths:
      wnid = _WNID.match(path.name)
      if wnid and _WNID.fullmatch(name) and wnid.group() != name:
        misplaced.append(f"{path if listed else f'{path.parent.name}/{path.name}'} of class {wnid.group()}")
      if wnid and seen.setdefault(path.name, path) is not path:
        twice.append(f"{_short(seen[path.name])} and {_short(path)}")
  complain("are in the folder of another class" if not listed else "are listed under another class", misplaced)
  complain("are there twice", twice)


def complain(
  fault: str, names: list[str], root: PathLike | None = None, what: str = "image files", some: int = 1
) -> None:
  """Raises a ValueError that counts `names` and shows the first; without names it does nothing."""
  if names:
    where = f" in {root}" if root else ""
    none = "" if some else " (none of the listed files is there)"
    shown = "; ".join(names[:3]) + ("; ..." if len(names) > 3 else "")
    raise ValueError(f"{len(names)} {what}{where} {fault}{none}: {shown}. Put them right, or take them out.")


def _classes(files: Files) -> Iterable[tuple[str, Sequence[File]]]:
  return [item for classes in files.values() for item in classes.items()]


def counts(files: Files) -> dict[str, dict[str, int]]:
  """Images by split and class."""
  return {part: {name: len(paths) for name, paths in classes.items()} for part, classes in files.items()}


def _short(path: File) -> str:
  return "/".join(path.parts[-3:])


def _first(paths: Iterable[pathlib.Path], directory: bool = True) -> pathlib.Path | None:
  return next((path for path in paths if (path.is_dir() if directory else path.is_file())), None)
