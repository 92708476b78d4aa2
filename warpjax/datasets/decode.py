"""Image files, read into one uint8 array."""

from __future__ import annotations

import collections
import io
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np

from warpjax.datasets import image_modes
from warpjax.datasets.store import PathLike

Resample = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
SPLITS = ("train", "val", "test")


class Original(NamedTuple):
  """An image file before it was decoded.

  Attributes:
    size: Width and height.
    mode: Its mode, as Pillow names it.
    changes: Further changes, in the words of `image_modes`.
  """

  size: tuple[int, int]
  mode: str
  changes: tuple[str, ...] = ()


class File(Protocol):
  """An object that reads the bytes of an image, such as a path."""

  def read_bytes(self) -> bytes:
    """The image file."""


class Decoder(NamedTuple):
  """How an image file becomes an array.

  Attributes:
    size: Height and width in pixels.
    mode: Pillow's `"L"` (one channel) or `"RGB"`; `image_modes` converts images in other modes.
    resample: Pillow's filter, used where an image has another size.
  """

  size: int
  mode: image_modes.Mode = "RGB"
  resample: Resample = "lanczos"

  def check(self) -> None:
    """Raises ValueError for a size below 1 or an unknown filter."""
    if self.size < 1:
      raise ValueError(f"size must be at least 1; got {self.size}")
    if self.resample not in get_args(Resample):
      raise ValueError(f"resample must be one of {', '.join(get_args(Resample))}; got {self.resample!r}")

  def __call__(self, data: bytes) -> tuple[np.ndarray, Original]:
    """The bytes of an image file to uint8 `[size, size, channels]`, and the file's size and mode."""
    from PIL import Image

    opened = Image.open(io.BytesIO(data))
    mode = opened.mode
    image, changes = image_modes.seen(opened, self.mode)
    original = Original(image.size, mode, changes)
    if image.size != (self.size, self.size):
      image = image.resize((self.size, self.size), Image.Resampling[self.resample.upper()])
    return np.asarray(image, np.uint8).reshape(self.size, self.size, -1), original

  def notes(self, originals: collections.Counter[Original]) -> list[str]:
    """The changes made to files, in words: another size, another mode, transparency and so on."""
    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    modes: collections.Counter[str] = collections.Counter()
    changes: collections.Counter[str] = collections.Counter()
    for original, count in originals.items():
      changes.update(dict.fromkeys(original.changes, count))
      sizes[original.size] += count * (original.size != (self.size, self.size))
      modes[original.mode] += count * (original.mode != self.mode)
    notes = []
    if resized := sizes.total():
      area = lambda size: (size[0] * size[1], size)
      others = sorted((size for size, count in sizes.items() if count), key=area)
      were = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys((others[0], others[-1])))
      notes.append(f"{resized:,} images were {were}, resized to {self.size}x{self.size} by {self.resample}")
    if converted := modes.total():
      were = ", ".join(sorted(mode for mode, count in modes.items() if count))
      notes.append(f"{converted:,} images were of mode {were}, converted to {self.mode}")
    return notes + [f"{count:,} images {change}" for change, count in sorted(changes.items())]


def has_splits(root: PathLike) -> bool:
  """Whether `root` holds `train`, `val` and `test` folders."""
  return all(pathlib.Path(root, split).is_dir() for split in SPLITS)


def decode(
  items: Sequence[bytes | File],
  decoder: Decoder,
  images: np.ndarray | None = None,
  originals: collections.Counter[Original] | None = None,
) -> np.ndarray:
  """Image files, or their bytes, to uint8 `[n, size, size, channels]`, on as many threads as there are cores.

  Args:
    items: Files or bytes.
    decoder: How one becomes an array.
    images: The array to write them to, e.g. a memory-mapped file; None for a new array.
    originals: Counts the sizes and modes of the files.

  Returns:
    The images.

  Raises:
    ValueError: for files that are not images, are truncated, or have an unknown range of values; all of them
      counted and the first named.
  """
  images = np.empty((len(items), decoder.size, decoder.size, len(decoder.mode)), np.uint8) if images is None else images

  def fill(i: int) -> Original | str:
    item = items[i]
    try:
      images[i], original = decoder(item if isinstance(item, bytes) else item.read_bytes())
    except Exception as error:  # each of Pillow's readers has its own for a damaged file
      reason = str(error).split(" <")[0] or type(error).__name__  # without the address of the buffer it was read from
      return f"{f'image {i}' if isinstance(item, bytes) else item} ({reason})"
    return original

  with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
    results = list(pool.map(fill, range(len(items))))
  if broken := [fault for fault in results if isinstance(fault, str)]:
    raise ValueError(f"{len(broken)} image files cannot be read: {'; '.join(broken[:3])}. Fetch or save them again.")
  if originals is not None:
    originals.update(original for original in results if isinstance(original, Original))
  return images


def read(
  files: Sequence[Sequence[bytes | File]], decoder: Decoder, originals: collections.Counter[Original] | None = None
) -> np.ndarray:
  """The same number of files of each class to uint8 `[classes, examples, size, size, channels]`.

  Raises:
    ValueError: if there are no classes, or classes have different numbers of files.
  """
  counts = sorted({len(paths) for paths in files})
  if len(counts) != 1:
    number = f"{counts[0]} to {counts[-1]}" if counts else "no"
    raise ValueError(f"every class must have the same number of images; found {number} images per class")
  images = decode([path for paths in files for path in paths], decoder, originals=originals)
  return images.reshape(len(files), counts[0], *images.shape[1:])
