"""Text as bytes: any file, or the only `.txt` file of a folder."""

from __future__ import annotations

import hashlib
import pathlib
from typing import NamedTuple

import numpy as np

from warpjax.datasets.store import DatasetNotFoundError, PathLike


class Text(NamedTuple):
  """A text.

  Attributes:
    data: Its bytes, `[length]`, uint8.
    name: The name of its file.
    sha256: The SHA-256 of the file.
  """

  data: np.ndarray
  name: str
  sha256: str


def load(data_dir: PathLike | None) -> Text:
  """Reads a text.

  Args:
    data_dir: A file, or a folder with one `.txt` file.

  Returns:
    A `Text`.

  Raises:
    DatasetNotFoundError: If there is no such file.
    ValueError: If a folder has several.

  Example:
    >>> text = load(__file__)
    >>> text.name, text.data.dtype.name
    ('text.py', 'uint8')
  """
  path = _file(data_dir)
  content = path.read_bytes()
  return Text(np.frombuffer(content, np.uint8), path.name, hashlib.sha256(content).hexdigest())


def _file(data_dir: PathLike | None) -> pathlib.Path:
  if data_dir is None:
    raise DatasetNotFoundError("No text is named: pass --data_dir=FILE, or a folder with one .txt file.")
  path = pathlib.Path(data_dir)
  if path.is_file():
    return path
  files = sorted(path.glob("*.txt")) if path.is_dir() else []
  if not files:
    raise DatasetNotFoundError(f"No text was found: --data_dir={path} must be a file, or a folder with one .txt file.")
  if len(files) > 1:
    names = ", ".join(file.name for file in files[:5])
    raise ValueError(f"--data_dir={path} must be a file, or a folder with one .txt file; it has {len(files)}: {names}")
  return files[0]
