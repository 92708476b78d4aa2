"""Fashion-MNIST: 60,000 training and 10,000 test images of 28x28, in ten classes of clothes."""

from __future__ import annotations

import gzip
import os
import pathlib

import numpy as np

from warpjax.datasets import tfds_files
from warpjax.datasets.labelled.examples import Labelled
from warpjax.datasets.store import DatasetNotFoundError, PathLike

NAME = "fashion_mnist"
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
"""The four idx files, in the order of `Labelled`, each with or without `.gz`."""

DEBIAN = pathlib.Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package `dataset-fashion-mnist` puts them."""

_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz"
_UINT8 = 0x08


def load(data_dir: PathLike | None = None, *, download: bool = True) -> Labelled:
  """Fashion-MNIST from its four idx files, or as tensorflow-datasets prepares it, which shuffles it.

  The order of the examples only depends on their pixels, so that both sources give the same arrays.

  Args:
    data_dir: A folder with the files `FILES`, or a prepared tensorflow-datasets root with `fashion_mnist`. `None`:
      `TFDS_DATA_DIR`, else the folder of the Debian package, else tensorflow-datasets' own default.
    download: Whether tensorflow-datasets prepares an absent set under `data_dir`, if there is a network.

  Returns:
    A `Labelled`; images are uint8 `[examples, 28, 28]`.

  Raises:
    DatasetNotFoundError: at once, when the set is absent and cannot be fetched.
    ValueError: for a file that is no idx file of bytes, is cut short, or has another number of examples.

  Example:
    >>> load("/nowhere", download=False)
    Traceback (most recent call last):
      ...
    warpjax.datasets.store.DatasetNotFoundError: Fashion-MNIST was not found in /nowhere...

  Reference:
    Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747.
  """
  debian = DEBIAN if _idx_files(DEBIAN) else None
  root = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or debian or "~/tensorflow_datasets").expanduser()
  root = root.parents[1] if (root / "dataset_info.json").is_file() else root
  if not (_idx_files(root) or tfds_files.version_dir(root, NAME)):
    _fetch(root, download)
  train_x, train_y, test_x, test_y = _read_idx(_idx_files(root)) if _idx_files(root) else _read_tfds(root)
  return Labelled(*_in_order(train_x, train_y), *_in_order(test_x, test_y))


def prepare(root: PathLike, archives: PathLike | None = None) -> None:
  """Prepares the set under `root` as array_record files.

  Args:
    root: A tensorflow-datasets root.
    archives: A folder with the four files `FILES`, each with `.gz`, used instead of the network.

  Raises:
    ConnectionError: within seconds, if there is no network.
    FileNotFoundError: when `archives` lacks a file.
  """
  tfds_files.prepare(root, NAME, archives, url=_URL, reader="tensorflow_datasets.image_classification.mnist")


def _in_order(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The examples in the order of their pixels, then of their labels."""
  order = sorted(range(len(labels)), key=lambda index: (images[index].tobytes(), labels[index]))
  return images[order], labels[order]


def _idx_files(root: pathlib.Path) -> list[pathlib.Path]:
  """The four files, or none if one is missing."""
  found = [next((p for p in (root / name, root / f"{name}.gz") if p.is_file()), None) for name in FILES]
  paths = [path for path in found if path is not None]
  return paths if len(paths) == len(FILES) else []


def _fetch(root: pathlib.Path, download: bool) -> None:
  reason = "download is off"
  if download:
    try:
      return prepare(root)
    except ConnectionError as error:
      reason = str(error)
  raise DatasetNotFoundError(
    f"Fashion-MNIST was not found in {root}, and was not fetched: {reason}. Looked for {', '.join(FILES)}, with or"
    f" without .gz, and for {NAME}/<version>/ as tensorflow-datasets prepares it. The Debian package"
    f" dataset-fashion-mnist puts the files into {DEBIAN}. Then pass --data_dir=DIR or set TFDS_DATA_DIR=DIR."
  )


def _read_idx(paths: list[pathlib.Path]) -> Labelled:
  train_x, train_y, test_x, test_y = (read_idx(path) for path in paths)
  for images, labels, path in ((train_x, train_y, paths[1]), (test_x, test_y, paths[3])):
    if images.ndim != 3 or labels.shape != images.shape[:1]:
      raise ValueError(f"{path} must have a label for each image of {images.shape}; got {labels.shape}.")
  return Labelled(train_x, train_y.astype(np.int32), test_x, test_y.astype(np.int32))


def read_idx(path: PathLike) -> np.ndarray:
  """The array of an idx file of bytes, gzipped or not.

  Args:
    path: The file.

  Returns:
    uint8, of the shape that the file says.

  Raises:
    ValueError: when it is no idx file of bytes, or is cut short.
  """
  path = pathlib.Path(path)
  data = path.read_bytes()
  try:
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
  except (EOFError, gzip.BadGzipFile) as error:
    raise ValueError(f"{path} is a broken gzip file: {error}.") from None
  if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8 or len(data) < 4 + 4 * data[3]:
    raise ValueError(f"{path} is no idx file of bytes: it starts with {data[:4]!r}.")
  rank = data[3]
  shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, 4))
  body = np.frombuffer(data, np.uint8, offset=4 + 4 * rank)
  if body.size != int(np.prod(shape)):
    raise ValueError(f"{path} must hold {shape} bytes; it has {body.size}.")
  return body.reshape(shape)


def _read_tfds(root: pathlib.Path) -> Labelled:
  builder = tfds_files.open_builder(root, NAME)
  arrays: list[np.ndarray] = []
  for part in ("train", "test"):
    items = list(builder.as_data_source(part))
    images = np.stack([np.asarray(item["image"], np.uint8)[..., 0] for item in items])
    arrays += [images, np.array([item["label"] for item in items], np.int32)]
  return Labelled(*arrays)
