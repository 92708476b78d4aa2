"""Checks of files that came from elsewhere, before anything is unpacked from them."""

from __future__ import annotations

import pathlib
import zipfile

from warpjax.tasks.cache import PathLike


def check_zip(path: PathLike) -> None:
  """Refuses what is no zip archive, and one that would write outside the folder it is unpacked into.

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
