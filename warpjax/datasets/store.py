"""Arrays prepared once from a data set and kept in the user's cache folder, never in the data's folder."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]
Arrays = dict[str, np.ndarray]


class DatasetNotFoundError(FileNotFoundError):
  """A data set is absent and cannot be downloaded; the message says where it was searched, and how to prepare it."""


def default_dir() -> pathlib.Path:
  """`$XDG_CACHE_HOME/warpjax`, else `~/.cache/warpjax`."""
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "warpjax"


def fingerprint(*roots: PathLike) -> str:
  """SHA-256 over the relative path, size and modification time of every file under `roots`."""
  digest = hashlib.sha256()
  for root in map(pathlib.Path, roots):
    top = root.name  # pathlib is slow
    lines = (f"{top}/{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n" for name, stat in sorted(_files(root)))
    digest.update(os.fsencode("".join(lines)))
  return digest.hexdigest()


def _files(root: pathlib.Path) -> Iterator[tuple[str, os.stat_result]]:
  if root.is_file():
    yield "", root.stat()
    return
  for folder, _, names in walk(root):
    inside = "" if folder == str(root) else os.path.join(os.path.relpath(folder, root), "")
    # Only this for each file: sets have 60,000 files and more.
    for name in names:
      path = f"{folder}/{name}"
      try:
        yield inside + name, os.stat(path)
      except FileNotFoundError:  # a link to nothing, which the reader names
        yield inside + name, os.lstat(path)


def walk(root: PathLike) -> Iterator[tuple[str, list[str], list[str]]]:
  """Each folder under `root`, links to folders followed, with the names of the folders and the files in it.

  A folder inside itself is not entered, nor one that is removed from the list of folders. The files that are read and
  those that are fingerprinted must be the same, so both are listed by this function.

  Raises:
    OSError: for a folder that cannot be read.
  """
  for folder, inside, names in os.walk(root, followlinks=True, onerror=_refuse):
    real = os.path.realpath(folder)
    inside[:] = [name for name in inside if not _holds(os.path.realpath(os.path.join(folder, name)), real)]
    yield folder, inside, names


def own_name(folder: PathLike) -> str:
  """The name of a folder; pathlib has none for "."."""
  return os.path.basename(os.path.abspath(folder))


def _refuse(error: OSError) -> None:
  raise error


def _holds(folder: str, other: str) -> bool:
  return os.path.commonpath([folder, other]) == folder


def load_or_make(
  name: str,
  settings: Mapping[str, Any],
  make: Callable[[], tuple[Arrays, Any]],
  cache_dir: PathLike | None = None,
) -> tuple[Arrays, Any]:
  """Arrays and JSON metadata from the cache, made and stored there the first time.

  Args:
    name: The data set's name, which starts the folder's.
    settings: All settings that the arrays depend on, with the fingerprint of their source; their hash ends the folder's
      name.
    make: Makes `(arrays, metadata)`.
    cache_dir: The cache; `None` for `default_dir()`.

  Returns:
    The arrays, memory-mapped and read-only, and the metadata.
  """

  def write(folder: pathlib.Path) -> Any:
    arrays, metadata = make()
    for array_name, array in arrays.items():
      np.save(folder / f"{array_name}.npy", array, allow_pickle=False)
    return metadata

  return load_or_write(name, settings, write, cache_dir)


def load_or_write(
  name: str,
  settings: Mapping[str, Any],
  write: Callable[[pathlib.Path], Any],
  cache_dir: PathLike | None = None,
) -> tuple[Arrays, Any]:
  """`load_or_make` for arrays that do not fit into memory and are written piece by piece.

  Args:
    name: The data set's name.
    settings: All settings that the arrays depend on.
    write: `(folder) -> metadata`, which puts `*.npy` files into the folder.
    cache_dir: The cache.

  Returns:
    The arrays, memory-mapped and read-only, and the metadata.
  """
  key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
  root = pathlib.Path(cache_dir) if cache_dir is not None else default_dir()
  folder = root / f"{name}-{key}"
  if not folder.is_dir():
    _store(folder, write)
  arrays = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("*.npy"))}
  return arrays, json.loads((folder / "metadata.json").read_text(encoding="utf-8"))


def _store(folder: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
  """Writes aside and renames, so that a reader sees a whole folder or none."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
  try:
    (aside / "metadata.json").write_text(json.dumps(write(aside)), encoding="utf-8")
    aside.chmod(0o755)
    os.rename(aside, folder)
  except OSError:
    # Another process may have stored the same folder first, which is as good.
    if not folder.is_dir():
      raise
  finally:
    shutil.rmtree(aside, ignore_errors=True)
