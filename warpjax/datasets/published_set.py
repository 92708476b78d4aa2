"""The facts of a published image set, and how the files on the disk differ from it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from warpjax.datasets import layouts, splits


class Published(NamedTuple):
  """The published facts of a data set.

  Attributes:
    title: Its name in messages.
    folders: Names of a folder with it under the data folder.
    split: The class split; None takes that of the folders.
    per_class: Images of each class; None where classes differ.
    totals: Images of each split.
    identical: Pairs of file names, without suffix, whose images are the same in the published set; None if they
      are not known, and such pairs are then counted and not an error.
  """

  title: str
  folders: tuple[str, ...]
  split: splits.Split | None = None
  per_class: int | None = None
  totals: tuple[int, int, int] | None = None
  identical: frozenset[frozenset[str]] | None = None


def absent(published: Published, roots: Sequence[pathlib.Path], option: str) -> str:
  """The error message for a set that is in none of `roots`; `option` names the folder on the command line."""
  where = " and ".join(map(str, roots)) or "no folder: neither data_dir nor TFDS_DATA_DIR is set"
  classes = f" of the {len(published.split.all)} classes" if published.split else ""
  archive = ""
  if option == "data_dir" and roots and roots[0].is_file():
    prepare = [f", or warpjax prepare {name} --archives={roots[0]}" for name in published.folders]
    archive = f" It is a file: unpack it first{''.join(prepare[:1])}."
  return (
    f"{published.title} was not found: looked in {where} for {{train,val,test}}/<class>/*, for <class>/*{classes}, for "
    "train.csv, val.csv and test.csv beside the images or images/, and for <version>/ of warpjax prepare."
    f"{archive} It cannot be downloaded freely: put the images into one of these shapes and pass --{option}=DIR."
  )


def check_counts(files: layouts.Files, published: Published) -> None:
  """Raises a ValueError for classes with more images than the published set, or for unequal classes in another set."""
  counts = {f"{part}/{name}": n for part, names in layouts.counts(files).items() for name, n in names.items()}
  if published.per_class:
    more = [f"{name} has {n}" for name, n in counts.items() if n > published.per_class]
    layouts.complain(f"have more than the {published.per_class} images of the set", more, what="classes")
  elif published.totals is None and len(set(counts.values())) != 1:
    lowest, highest = min(counts.values()), max(counts.values())
    raise ValueError(f"every class must have the same number of images; found {lowest} to {highest} images per class")


def identical(pairs: list[tuple[layouts.File, layouts.File]], published: Published) -> list[str]:
  """Raises an error for images that occur twice if the published set has no such pair; otherwise returns a note."""
  if published.identical is not None:
    known = [pair for pair in pairs if frozenset(path.stem for path in pair) in published.identical]
    new = [f"{a.parent.name}/{a.name} and {b.parent.name}/{b.name}" for a, b in pairs if (a, b) not in known]
    layouts.complain("are the same image twice, pixel by pixel", new, what="pairs of files")
  if not pairs:
    return []
  known_or_not = "as" if published.identical is not None else "perhaps also"
  return [f"{len(pairs)} images occur twice, {known_or_not} in the published set"]


def missing(split: splits.Split, counts: Sequence[Sequence[int]], published: Published) -> str:
  """What is missing from the published set, in words."""
  if published.split is None:
    return ""
  lacks = []
  for part, numbers, total in zip(splits.Split._fields, counts, published.totals or (0, 0, 0), strict=True):
    official, present = getattr(published.split, part), getattr(split, part)
    if len(present) < len(official):
      lacks.append(f"{len(official) - len(present)} of {len(official)} {part} classes")
    whole = published.per_class * len(present) if published.per_class else total
    if sum(numbers) < whole and (published.per_class or len(present) == len(official)):
      lacks.append(f"{whole - sum(numbers)} of {whole} {part} images")
  return ", ".join(lacks)
