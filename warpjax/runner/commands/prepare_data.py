"""Prepares a data set on the disk, for reading without a network.

warpjax prepare omniglot --data_dir=DIR [--archives=FOLDER]
warpjax prepare cifar100 --data_dir=DIR [--archives=FOLDER]
warpjax prepare mini_imagenet --data_dir=DIR --archives=FOLDER_OR_ZIP
warpjax prepare tiered_imagenet --data_dir=DIR --archives=FOLDER_OR_ZIP
warpjax prepare packed_omniglot --data_dir=DIR [--archives=PREPARED]

warpjax prepare fashion_mnist --data_dir=DIR [--archives=FOLDER]

Without --archives omniglot, cifar100 and fashion_mnist are downloaded. With it,
FOLDER holds the archives that would be downloaded: for
omniglot images_background.zip, images_evaluation.zip, images_background_small1.zip and images_background_small2.zip,
for cifar100 (CIFAR-FS, FC100) cifar-100-binary.tar.gz, for fashion_mnist the four idx files, gzipped. A folder with
these four files need not be prepared.

mini-ImageNet and tiered-ImageNet cannot be downloaded freely. They are prepared from a folder of image files,
{train,val,test}/<wnid>/*, <wnid>/* or {train,val,test}.csv beside the images, or from a zip archive of one; the files
keep their bytes. A folder need not be prepared: warpjax train takes it as --data_dir too.

packed_omniglot makes one file of a few MB from Omniglot, prepared as above or in its upstream folders. Recipes train on
the same images from it, and need neither tensorflow-datasets nor a network.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from absl import app, flags

from warpjax.datasets import cifar, fashion_mnist, mini_imagenet, omniglot, tfds_images, tiered_imagenet
from warpjax.runner import cli
from warpjax.runner.machine import interrupts

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where to prepare it; TFDS_DATA_DIR, else ~/tensorflow_datasets.")
_ARCHIVES = flags.DEFINE_string("archives", None, "Archives, or a folder with them, used instead of the network.")

PREPARE = {
  "omniglot": tfds_images.prepare_omniglot,
  "cifar100": cifar.prepare,
  "mini_imagenet": mini_imagenet.prepare,
  "tiered_imagenet": tiered_imagenet.prepare,
  "packed_omniglot": omniglot.pack,
  "fashion_mnist": fashion_mnist.prepare,
}


def prepare_data(name: str, data_dir: str | None = None, archives: str | None = None) -> pathlib.Path:
  """Prepares data set `name` under `data_dir`.

  Args:
    name: One of `PREPARE`.
    data_dir: A tensorflow-datasets root; `None` for `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
    archives: A folder with the archives; for image sets, a folder of images or its zip archive. `None` to download.

  Returns:
    The root.

  Raises:
    ValueError: for an unknown name, or an archive or images that are damaged or misplaced.
    ConnectionError: within seconds, when there is no network to fetch it from.
    FileNotFoundError: when `archives` lacks a file, or images are to be downloaded.
  """
  if name not in PREPARE:
    raise ValueError(f"the data set must be one of {', '.join(PREPARE)}; got {name!r}")
  root = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()
  PREPARE[name](root, archives)
  return root


def main(argv: Sequence[str]) -> None:
  """The command line."""
  if len(argv) != 2:
    raise app.UsageError(f"name one data set of: {', '.join(PREPARE)}")
  try:
    with interrupts.raised():
      root = prepare_data(argv[1], _DATA_DIR.value, _ARCHIVES.value)
  except (ValueError, OSError) as error:
    raise SystemExit(str(error)) from error
  print(f"{argv[1]} is prepared under {root}: pass --data_dir={root}")


def command() -> None:
  """Defines the flags and runs."""
  cli.run_with(main, app.parse_flags_with_usage, __name__)
