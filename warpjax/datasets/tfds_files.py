"""Reads and prepares the files of tensorflow-datasets without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import tempfile
import threading
import types
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np
from absl import logging

from warpjax.datasets.archives import check_zip
from warpjax.datasets.store import DatasetNotFoundError, PathLike

PROBE_SECONDS = 5.0


def version_dir(root: PathLike, name: str) -> pathlib.Path | None:
  """The finished `name/<version>` under `root`, or None; asked without importing tensorflow-datasets."""
  return newest(pathlib.Path(root, name))


def newest(folder: pathlib.Path) -> pathlib.Path | None:
  """The newest finished `<version>` in the folder of a set, or None."""
  # While it prepares a version, tensorflow-datasets writes to a sibling folder, `<version>.incomplete...`.
  versions = [
    path.parent for path in folder.glob("[!.]*.*.*/dataset_info.json") if ".incomplete" not in path.parent.name
  ]
  return max(versions, key=_version, default=None)


def _version(folder: pathlib.Path) -> list[tuple[int, str]]:
  """Numbers as numbers, so that 10.0.0 is above 9.0.0; words below them."""
  return [(int(part), "") if part.isdigit() else (-1, part) for part in folder.name.split(".")]


def open_builder(root: PathLike, name: str) -> Any:
  """The builder of a prepared set, whose `as_data_source` reads it.

  Raises:
    DatasetNotFoundError: when it is not there, or was prepared in a file format that only TensorFlow reads.
  """
  folder = version_dir(root, name)
  if folder is None:
    raise DatasetNotFoundError(f"no {name}/<version>/dataset_info.json under {root}")
  return open_folder(folder)


def open_folder(folder: pathlib.Path) -> Any:
  """`open_builder` for the folder of one `<name>/<version>`."""
  name = folder.parent.name
  file_format = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
  if file_format != "array_record":
    raise DatasetNotFoundError(
      f"{folder} was prepared as {file_format}, which needs TensorFlow to read; prepare it as array_record in another"
      f" folder: warpjax prepare {name} --data_dir=DIR"
    )
  return import_tfds(name).builder_from_directory(str(folder))


def prepare(
  root: PathLike, name: str, archives: PathLike | None, *, url: str, reader: str, extractor: bool = True
) -> None:
  """Prepares a set under `root` as array_record files.

  Args:
    root: A tensorflow-datasets root.
    name: The set.
    archives: A folder with the upstream archives, used instead of the network.
    url: One of their addresses, to test whether there is a network.
    reader: The module of tensorflow-datasets that reads the archives.
    extractor: Whether they are unpacked by tensorflow-datasets.

  Raises:
    ConnectionError: within seconds, if there is no network.
    FileNotFoundError: when `archives` lacks a file.
    ValueError: if one that should be a zip archive is not, or would write outside of its folder.
  """
  if version_dir(root, name):
    return
  if archives is None:
    _probe(url)
  builder = import_tfds(name).builder(name, data_dir=str(root), file_format="array_record")
  pathlib.Path(root).mkdir(parents=True, exist_ok=True)
  # What is downloaded and unpacked is not needed afterwards.
  with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as downloads:
    if archives is not None:
      _use_archives(builder, pathlib.Path(downloads), pathlib.Path(archives))
    modules = [reader, *["tensorflow_datasets.core.download.extractor"] * extractor]
    # What it downloads, tensorflow-datasets checks against the SHA-256 that is registered with it.
    with _without_tensorflow(modules):
      builder.download_and_prepare(download_dir=downloads)


def import_tfds(name: str) -> Any:
  """tensorflow-datasets, or an ImportError that says how to get it."""
  try:
    import tensorflow_datasets
  except ImportError as error:
    raise ImportError(f'{name} needs tensorflow-datasets: pip install -e ".[data]"') from error
  return tensorflow_datasets


def _probe(url: str) -> None:
  """Raises ConnectionError soon; tensorflow-datasets retries for minutes, and name look-ups have no timeout."""
  answer: list[BaseException | None] = []

  def ask() -> None:
    try:
      with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
        answer.append(None)
    except OSError as error:
      answer.append(error)

  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(PROBE_SECONDS)
  if answer != [None]:
    raise ConnectionError(f"no answer from {url} ({answer[0] if answer else f'waited {PROBE_SECONDS:g} s'})")


def _use_archives(builder: Any, downloads: pathlib.Path, archives: pathlib.Path) -> None:
  """Copies local archives to the download folder of tensorflow-datasets, which does not hash those again."""
  from tensorflow_datasets.core.download import resource

  for url, info in builder.url_infos.items():
    source = archives / url.rsplit("/", 1)[1]
    if not source.is_file():
      raise FileNotFoundError(f"archives must hold {source.name}; {archives} does not")
    if source.suffix == ".zip":
      check_zip(source)
    if hashlib.sha256(source.read_bytes()).hexdigest() != info.checksum:
      logging.warning("%s is not the file that tensorflow-datasets registered for %s; used as it is", source, url)
    target = downloads / builder.name / resource.get_dl_fname(url, info.checksum)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.with_name(target.name + ".INFO").write_text("{}", encoding="utf-8")


@contextlib.contextmanager
def _without_tensorflow(modules: Sequence[str]) -> Iterator[None]:
  """Stands in for the few TensorFlow functions that `modules` and the encoding of images call, unless it is there."""
  if importlib.util.find_spec("tensorflow") is not None:
    yield
    return
  from tensorflow_datasets.core.features import image_feature

  gfile = types.SimpleNamespace(GFile=open, listdir=os.listdir)
  tf = types.SimpleNamespace(compat=types.SimpleNamespace(as_text=os.fsdecode), io=types.SimpleNamespace(gfile=gfile))
  with contextlib.ExitStack() as stack:
    for name in modules:
      stack.enter_context(mock.patch.object(importlib.import_module(name), "tf", tf))
    stack.enter_context(mock.patch.object(image_feature._ImageEncoder, "_encode_image", _png))
    yield


def _png(encoder: Any, image: np.ndarray) -> bytes:
  from PIL import Image

  file = io.BytesIO()
  grey = image.shape[-1] == 1  # Pillow has no third axis for grey
  Image.fromarray(image[..., 0] if grey else image).save(file, "PNG")
  return file.getvalue()
