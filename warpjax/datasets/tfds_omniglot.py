"""Omniglot as tensorflow-datasets keeps it."""

from __future__ import annotations

import collections

import numpy as np

from warpjax.datasets import decode, tfds_files
from warpjax.datasets.store import PathLike

_URL = "https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip"


def is_prepared(root: PathLike) -> bool:
  """Whether `root` holds a finished `omniglot/<version>`; asked without importing tensorflow-datasets."""
  return tfds_files.version_dir(root, "omniglot") is not None


def read(
  root: PathLike,
  decoder: decode.Decoder,
  originals: collections.Counter[decode.Original] | None = None,
) -> tuple[list[str], np.ndarray]:
  """The background and evaluation sets under `root`.

  Args:
    root: A prepared tensorflow-datasets root.
    decoder: How an image becomes an array.
    originals: Where to count what the images were.

  Returns:
    Names `"Alphabet/characterNN"`, and uint8 `[classes, examples, size, size, channels]` in their order.

  Raises:
    DatasetNotFoundError: when the set was prepared in a file format that only TensorFlow reads.
  """
  builder = tfds_files.open_builder(root, "omniglot")
  raw = {"image": tfds_files.import_tfds("omniglot").decode.SkipDecoding()}
  alphabets = builder.info.features["alphabet"]
  found: dict[str, list[bytes]] = {}
  for split in ("train", "test"):
    for item in builder.as_data_source(split, decoders=raw):
      name = f"{alphabets.int2str(int(item['alphabet']))}/character{int(item['alphabet_char_id']) + 1:02d}"
      found.setdefault(name, []).append(item["image"])
  images = decode.decode([data for group in found.values() for data in group], decoder, originals=originals)
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
  reader = "tensorflow_datasets.image_classification.omniglot"
  tfds_files.prepare(root, "omniglot", archives, url=_URL, reader=reader)
