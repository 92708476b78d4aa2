"""Omniglot as tensorflow-datasets keeps it, prepared and read without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import tempfile
import threading
import types
import urllib.request
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from absl import logging

from warpjax.tasks import image_folder
from warpjax.tasks.archives import check_zip
from warpjax.tasks.cache import DatasetNotFoundError, PathLike

PROBE_SECONDS = 5.0


def is_prepared(root: PathLike) -> bool:
  """Whether `root` holds a finished `omniglot/<version>`; asked without importing tensorflow-datasets."""
  return _version_dir(root) is not None


def read(root: PathLike, decoder: image_folder.Decoder) -> tuple[list[str], np.ndarray]:
  """The background and evaluation sets under `root`.

  Args:
    root: A prepared tensorflow-datasets root.
    decoder: How an image becomes an array.

  Returns:
    Names `"Alphabet/characterNN"`, and uint8 `[classes, examples, size, size, channels]` in their order.

  Raises:
    DatasetNotFoundError: when the set was prepared in a file format that only TensorFlow reads.
  """
  folder = _version_dir(root)
  if folder is None:
    raise DatasetNotFoundError(f"no omniglot/<version>/dataset_info.json under {root}")
  file_format = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
  if file_format != "array_record":
    raise DatasetNotFoundError(
      f"{folder} was prepared as {file_format}, which needs TensorFlow to read; prepare it as array_record in another"
      " folder: python -m experiments.prepare_data omniglot --data_dir=DIR"
    )
  tfds = _import_tfds()
  builder = tfds.builder_from_directory(str(folder))
  alphabets = builder.info.features["alphabet"]
  found: dict[str, list[bytes]] = {}
  for split in ("train", "test"):
    for item in builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}):
      name = f"{alphabets.int2str(int(item['alphabet']))}/character{int(item['alphabet_char_id']) + 1:02d}"
      found.setdefault(name, []).append(item["image"])
  images = image_folder.decode([data for group in found.values() for data in group], decoder)
  return list(found), images.reshape(len(found), -1, *images.shape[1:])


def prepare(root: PathLike, archives: PathLike | None = None) -> None:
  """Prepares the set under `root` as array_record files.

  Args:
    root: A tensorflow-datasets root.
    archives: A folder with the four upstream archives, used instead of the network.

  Raises:
    ConnectionError: within seconds, when there is no network to fetch it from.
    FileNotFoundError: when `archives` lacks one of the four files.
    ValueError: when one of them is no zip archive, or would write outside its folder.
  """
  if is_prepared(root):
    return
  if archives is None:
    _probe("https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip")
  builder = _import_tfds().builder("omniglot", data_dir=str(root), file_format="array_record")
  pathlib.Path(root).mkdir(parents=True, exist_ok=True)
  # What is downloaded and unpacked, 175 MB, is not needed afterwards.
  with tempfile.TemporaryDirectory(prefix=".omniglot-", dir=root) as downloads:
    if archives is not None:
      _use_archives(builder, pathlib.Path(downloads), pathlib.Path(archives))
    # What it downloads, tensorflow-datasets checks against the SHA-256 that is registered with it.
    with _without_tensorflow():
      builder.download_and_prepare(download_dir=downloads)


def _version_dir(root: PathLike) -> pathlib.Path | None:
  found = sorted(pathlib.Path(root).glob("omniglot/*.*.*/dataset_info.json"))
  return found[-1].parent if found else None


def _import_tfds() -> Any:
  try:
    import tensorflow_datasets
  except ImportError as error:
    raise ImportError('Omniglot needs tensorflow-datasets: pip install "warpjax[data]"') from error
  return tensorflow_datasets


def _probe(url: str) -> None:
  """Raises ConnectionError soon; tensorflow-datasets alone retries for minutes, and a name look-up has no timeout."""
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
  """Puts local archives where tensorflow-datasets keeps what it has downloaded; it does not hash those again."""
  from tensorflow_datasets.core.download import resource

  for url, info in builder.url_infos.items():
    source = archives / url.rsplit("/", 1)[1]
    if not source.is_file():
      raise FileNotFoundError(f"archives must hold {source.name}; {archives} does not")
    check_zip(source)
    if hashlib.sha256(source.read_bytes()).hexdigest() != info.checksum:
      logging.warning("%s is not the file that tensorflow-datasets registered for %s; used as it is", source, url)
    target = downloads / builder.name / resource.get_dl_fname(url, info.checksum)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.with_name(target.name + ".INFO").write_text("{}", encoding="utf-8")


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
  """Stands in for the three TensorFlow file functions that preparing this set calls, unless TensorFlow is there."""
  if importlib.util.find_spec("tensorflow") is not None:
    yield
    return
  from tensorflow_datasets.core.download import extractor
  from tensorflow_datasets.image_classification import omniglot

  gfile = types.SimpleNamespace(GFile=open, listdir=os.listdir)
  tf = types.SimpleNamespace(compat=types.SimpleNamespace(as_text=os.fsdecode), io=types.SimpleNamespace(gfile=gfile))
  with mock.patch.object(extractor, "tf", tf), mock.patch.object(omniglot, "tf", tf):
    yield
