"""mini-ImageNet, or any set of colour images in folders `{train,val,test}/<class>/*`."""

from __future__ import annotations

import os
import pathlib
from typing import NamedTuple

import numpy as np

from warpjax.tasks import cache, image_folder, splits
from warpjax.tasks.cache import DatasetNotFoundError, PathLike


class MiniImageNet(NamedTuple):
  """The three parts as arrays, in the split that the folders give.

  Attributes:
    train: uint8 `[classes, examples, size, size, 3]`, memory-mapped; `[64, 600, 84, 84, 3]` for the whole set.
    val: 16 classes.
    test: 20 classes.
    split: The names of the classes, in the order of the arrays' rows.
  """

  train: np.ndarray
  val: np.ndarray
  test: np.ndarray
  split: splits.Split


def load(
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  size: int = 84,
  resample: image_folder.Resample = "lanczos",
) -> MiniImageNet:
  """Reads the folders once, in threads, and from then on the arrays kept in the cache.

  Args:
    data_dir: A folder `{train,val,test}/<class>/*`, or one with `mini_imagenet/` of that form in it. `None`:
      `TFDS_DATA_DIR`.
    cache_dir: Where the arrays are kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    size: Height and width in pixels.
    resample: Pillow's filter, for images of another size.

  Returns:
    A `MiniImageNet`.

  Raises:
    DatasetNotFoundError: when the folders are not there; there is nowhere to fetch them from.
    ValueError: for a size below 1, an unknown filter, a class in two parts, or parts whose classes have different
      numbers of images.

  Reference:
    Vinyals et al. 2016, arXiv 1606.04080; split of Ravi and Larochelle 2017.
  """
  decoder = image_folder.Decoder(size, "RGB", resample)
  decoder.check()
  root = _root(data_dir)
  settings = {"source": cache.fingerprint(*(root / part for part in image_folder.SPLITS)), **decoder._asdict()}

  def make() -> tuple[cache.Arrays, dict[str, list[str]]]:
    found = {part: image_folder.classes(root / part) for part in image_folder.SPLITS}
    splits.make_split(**found)
    arrays = {part: image_folder.read(list(files.values()), decoder) for part, files in found.items()}
    return arrays, {part: list(files) for part, files in found.items()}

  arrays, names = cache.load_or_make("mini_imagenet", settings, make, cache_dir)
  return MiniImageNet(**arrays, split=splits.make_split(**names))


def _root(data_dir: PathLike | None) -> pathlib.Path:
  given = data_dir or os.environ.get("TFDS_DATA_DIR")
  roots = [pathlib.Path(given).expanduser(), pathlib.Path(given).expanduser() / "mini_imagenet"] if given else []
  for root in roots:
    if image_folder.has_splits(root):
      return root
  raise DatasetNotFoundError(
    f"mini-ImageNet was not found: looked for train/<class>/*, val/<class>/* and test/<class>/* in "
    f"{' and '.join(map(str, roots)) or 'no folder: neither data_dir nor TFDS_DATA_DIR is set'}. It cannot be "
    "downloaded freely: put the 84x84 images into such folders (64, 16 and 20 classes of 600) and pass --data_dir=DIR."
  )
