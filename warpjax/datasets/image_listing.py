"""Which files are images and which folders are classes; the files left out are counted and named.

* An image is a file whose name ends in one of `SUFFIXES`, in capitals or not, and does not begin with a dot.
* A class is a folder that holds images. Its name is its path below the folder that is read: `Greek/character01`.
* Folders whose names begin with a dot, and those that systems make (`SYSTEM_FOLDERS`), are not entered.
* Links are followed, to files and to folders, except to a folder around the link.
* Refused: images outside of a class, a class inside of a class, and two classes that are one folder by a link.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from warpjax.datasets.store import PathLike, own_name, walk

SUFFIXES = (
  *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
  *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__")


class Listing(NamedTuple):
  """The image files in a folder, by class.

  Attributes:
    classes: The files of each class, by its name; both sorted.
    hidden: Files and folders that begin with a dot or belong to a system.
    strange: Files whose names are not those of images.
    empty: Folders without images.
  """

  classes: dict[str, list[pathlib.Path]]
  hidden: tuple[str, ...] = ()
  strange: tuple[str, ...] = ()
  empty: tuple[str, ...] = ()


def is_hidden(name: str) -> bool:
  """Whether a file or folder of this name belongs to a system or a tool, and is not data."""
  return name.startswith(".") or name in SYSTEM_FOLDERS


def is_image(name: str) -> bool:
  """Whether a file of this name counts as an image."""
  return not is_hidden(name) and name.lower().endswith(SUFFIXES)


def read(root: PathLike) -> Listing:
  """The classes in a folder, and the files and folders that belong to no class.

  Args:
    root: The folder.

  Returns:
    A `Listing`; the files left out are named by paths that begin with the folder's name.

  Raises:
    ValueError: for images outside of a class, a class inside of a class, or two classes that are one folder.
  """
  root = pathlib.Path(root)
  own = own_name(root)
  classes: dict[str, list[pathlib.Path]] = {}
  hidden, strange, folders = [], [], []
  for folder, inside, names in walk(root):
    folder_name = pathlib.Path(folder).relative_to(root).as_posix()
    shown = lambda name, folder_name=folder_name: pathlib.PurePath(own, folder_name, name).as_posix()
    hidden += [shown(name) + "/" for name in inside if is_hidden(name)]
    hidden += [shown(name) for name in names if is_hidden(name)]
    strange += [shown(name) for name in names if not is_hidden(name) and not is_image(name)]
    inside[:] = [name for name in inside if not is_hidden(name)]
    folders.append(folder_name)
    if images := sorted(filter(is_image, names)):
      classes[folder_name] = [pathlib.Path(folder, name) for name in images]
  classes = dict(sorted(classes.items()))
  _check(root, classes)
  return Listing(classes, *_sorted(hidden, strange, _without(own, folders, classes)))


def notes(listings: Iterable[Listing]) -> list[str]:
  """The files left out of some folders, in words: their number, and the first names."""
  hidden, strange, empty = (sum(part, ()) for part in zip(*(listing[1:] for listing in listings), strict=True))
  kinds = {
    "hidden files and folders": hidden,
    "files that are no images by their names": strange,
    "folders without images": empty,
  }
  return [f"{len(names):,} {kind} were left out: {_first(names)}" for kind, names in kinds.items() if names]


def _sorted(*parts: list[str]) -> list[tuple[str, ...]]:
  return [tuple(sorted(part)) for part in parts]


def _without(own: str, folders: list[str], classes: Iterable[str]) -> list[str]:
  """The outermost folders that no class is in."""
  filled = {".", *classes, *(parent.as_posix() for name in classes for parent in pathlib.PurePath(name).parents)}
  outermost = [name for name in folders if name not in filled and pathlib.PurePath(name).parent.as_posix() in filled]
  return [f"{own}/{name}/" for name in outermost]


def _check(root: pathlib.Path, classes: dict[str, list[pathlib.Path]]) -> None:
  if stray := classes.get("."):
    shown = _first([path.name for path in stray])
    raise ValueError(f"images must be in a folder for each class; {len(stray)} in {root} are in none: {shown}")
  inner = [name for name in classes if any(parent.as_posix() in classes for parent in pathlib.PurePath(name).parents)]
  if inner:
    raise ValueError(f"a class must not be in the folder of another; {len(inner)} in {root} are: {_first(inner)}")
  real: dict[str, str] = {}
  for name, images in classes.items():
    if (other := real.setdefault(os.path.realpath(images[0].parent), name)) != name:
      raise ValueError(f"classes must be different folders; in {root} {other} and {name} are one, by a link")


def _first(names: Sequence[str]) -> str:
  return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
