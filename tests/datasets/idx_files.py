"""Fashion-MNIST's files, made: idx files of the real format."""

from __future__ import annotations

import gzip
import struct

import numpy as np


def write_idx(path, array):
  """The format of the published files: two zero bytes, the type, the rank, big-endian sizes, the bytes."""
  data = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_set(folder, train=30, test=10, suffix=".gz"):
  """The four files; labels follow from the images, so that there is something to learn."""
  rng = np.random.default_rng(0)
  folder.mkdir(parents=True, exist_ok=True)
  for part, count in (("train", train), ("t10k", test)):
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    images[np.arange(count), 2 * labels + 2] += 180
    write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
  return folder
