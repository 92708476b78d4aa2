"""Downloaded archives, checked before they are unpacked."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
import zipfile
import zlib
from collections.abc import Iterator

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
