"""Arrays prepared once from a data set and kept in the user's cache folder, never beside the data."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]
Arrays = dict[str, np.ndarray]


class DatasetNotFoundError(FileNotFoundError):
  """A data set is absent and cannot be fetched; the message says what was looked for, where, and what prepares it."""


def default_dir() -> pathlib.Path:
  """`$XDG_CACHE_HOME/warpjax`, else `~/.cache/warpjax`."""
  return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "warpjax"


def fingerprint(*roots: PathLike) -> str:
  """SHA-256 over the relative path, size and modification time of every file under `roots`."""
  digest = hashlib.sha256()
  for root in map(pathlib.Path, roots):
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
      stat = path.stat()
      digest.update(f"{root.name}/{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
  return digest.hexdigest()


def load_or_make(
  name: str,
  settings: Mapping[str, Any],
  make: Callable[[], tuple[Arrays, Any]],
  cache_dir: PathLike | None = None,
) -> tuple[Arrays, Any]:
  """Arrays and JSON metadata from the cache, made and stored there the first time.

  Args:
    name: The data set's name, which starts the folder's.
    settings: What the arrays depend on, the fingerprint of their source included; its hash ends the folder's name.
    make: Makes `(arrays, metadata)`.
    cache_dir: The cache; `None` for `default_dir()`.

  Returns:
    The arrays, memory-mapped and read-only, and the metadata.
  """
  key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
  root = pathlib.Path(cache_dir) if cache_dir is not None else default_dir()
  folder = root / f"{name}-{key}"
  if not folder.is_dir():
    _store(folder, *make())
  arrays = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("*.npy"))}
  return arrays, json.loads((folder / "metadata.json").read_text(encoding="utf-8"))


def _store(folder: pathlib.Path, arrays: Arrays, metadata: Any) -> None:
  """Writes aside and renames, so that a reader sees a whole folder or none."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
  try:
    for name, array in arrays.items():
      np.save(aside / f"{name}.npy", array, allow_pickle=False)
    (aside / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    aside.chmod(0o755)
    os.rename(aside, folder)
  except OSError:
    # Another process may have stored the same folder first, which is as good.
    if not folder.is_dir():
      raise
  finally:
    shutil.rmtree(aside, ignore_errors=True)
