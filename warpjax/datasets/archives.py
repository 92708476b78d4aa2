"""Downloaded archives, checked before they are unpacked, and drawings of one bit packed into one small file."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from warpjax.datasets.store import PathLike


def check_zip(path: PathLike) -> None:
  """Raises an error for a file that is not a zip archive, or would write outside of the folder it is unpacked into.

  Args:
    path: The file.

  Raises:
    ValueError: naming the file, and the member that leads outside.
  """
  path = pathlib.Path(path)
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
  except zipfile.BadZipFile:
    with open(path, "rb") as file:
      page = file.read(512).lstrip().lower().startswith((b"<!doctype", b"<html"))
    what = "an HTML page, as a server answers instead of a file" if page else "damaged, or something else"
    raise ValueError(f"{path} must be a zip archive; it is {what}") from None
  for member in members:
    name = pathlib.PurePosixPath(member.filename.replace("\\", "/"))
    # The Unix mode is in the upper half of the attributes; a link could lead the next member anywhere.
    if name.is_absolute() or ".." in name.parts or (member.external_attr >> 28) == 0o12:
      raise ValueError(f"{path} must unpack inside its folder; its member {member.filename!r} leads outside")


@contextlib.contextmanager
def unpacked(path: PathLike, where: PathLike) -> Iterator[pathlib.Path]:
  """A folder under `where` with the contents of a zip archive; it is removed at the end.

  Args:
    path: The file.
    where: Parent folder, made if it does not exist.

  Raises:
    ValueError: naming the file, when it is no whole zip archive, or would write outside its folder.
  """
  check_zip(path)
  pathlib.Path(where).mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=where) as folder:
    try:
      with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
      raise ValueError(f"{path} cannot be unpacked ({error}); fetch it again") from None
    yield pathlib.Path(folder)


def pack_drawings(path: PathLike, classes: Mapping[str, Sequence[bytes]]) -> None:
  """Writes image files of one bit and one size as one compressed array of bits, which has every pixel of them.

  Args:
    path: The file, `.npz`; it is replaced whole.
    classes: The image files of each class, by its name.

  Raises:
    ValueError: for images of another mode, or of different sizes, or classes with different numbers of images.
  """
  from PIL import Image

  opened = [[Image.open(io.BytesIO(data)) for data in files] for files in classes.values()]
  kinds = {(len(images), image.mode, image.size) for images in opened for image in images}
  if len(kinds) != 1 or next(iter(kinds))[1] != "1":
    shown = ", ".join(sorted(f"{mode} {width}x{height}, {count} a class" for count, mode, (width, height) in kinds))
    raise ValueError(
      f"drawings to pack must be of mode 1, of one size and as many in each class; got {shown or 'none'}"
    )
  paper = np.array([[np.asarray(image) for image in images] for images in opened])
  names, bits = np.array(list(classes)), np.frombuffer(lzma.compress(np.packbits(~paper, axis=-1).tobytes()), np.uint8)
  part = pathlib.Path(path).with_suffix(f".{os.getpid()}.part")
  with open(part, "wb") as file:
    np.savez(file, names=names, shape=np.array(paper.shape), bits=bits)
  os.replace(part, path)


def unpack_drawings(path: PathLike) -> dict[str, list[bytes]]:
  """The classes of `pack_drawings`, each image a file in the format PBM.

  Raises:
    ValueError: for a file that is damaged, or something else.
  """
  try:
    with np.load(path, allow_pickle=False) as arrays:
      names, (_, count, height, width) = arrays["names"].tolist(), arrays["shape"].tolist()
      bits = lzma.decompress(arrays["bits"].tobytes())
    rows = np.frombuffer(bits, np.uint8).reshape(len(names), count, -1)
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
    raise ValueError(f"{path} must be a file of packed drawings; it is damaged, or something else ({error})") from None
  head = f"P4 {width} {height} ".encode()
  return {name: [head + row.tobytes() for row in images] for name, images in zip(names, rows, strict=True)}
