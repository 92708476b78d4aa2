"""CIFAR-FS and FC100: the 100 classes of CIFAR-100, 600 images of 32x32 each, in two splits for few-shot learning."""

from __future__ import annotations

import os
import pathlib
import tarfile
import zlib
from typing import Any, Literal

import numpy as np

from warpjax.datasets import decode, image_sets, splits, store, tfds_files
from warpjax.datasets.store import DatasetNotFoundError, PathLike

NAMES = ("cifar_fs", "fc100")
_ARCHIVE, _FOLDER = "cifar-100-binary.tar.gz", "cifar-100-binary"
_URL = f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}"
_RECORD = 2 + 3 * 32 * 32
_PER_CLASS = 600


def load(
  name: Literal["cifar_fs", "fc100"],
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  require_complete: bool = False,
  download: bool = True,
) -> image_sets.ImageSet:
  """CIFAR-100 in the class split of CIFAR-FS or FC100; CIFAR's training and test images are joined.

  Args:
    name: `"cifar_fs"`: 64, 16 and 20 classes at random; `"fc100"`: 60, 20 and 20, by superclass.
    data_dir: A prepared tensorflow-datasets root with `cifar100`, or a folder with `cifar-100-binary.tar.gz` or
      `cifar-100-binary/`. `None`: `TFDS_DATA_DIR`, else tensorflow-datasets' own default.
    cache_dir: Where the arrays are kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    require_complete: Refuse a set with fewer than 600 images of each class.
    download: Whether tensorflow-datasets prepares an absent set under `data_dir`, if there is a network.

  Returns:
    An `ImageSet`; `train` is `[64, 600, 32, 32, 3]` for CIFAR-FS.

  Raises:
    DatasetNotFoundError: at once, when the set is absent and cannot be fetched.
    ValueError: for an unknown name, a file of another length, or classes with different numbers of images.

  Reference:
    Bertinetto et al. 2019, arXiv 1805.08136; Oreshkin, Rodriguez, Lacoste 2018, arXiv 1805.10123.
  """
  if name not in NAMES:
    raise ValueError(f"name must be one of {', '.join(NAMES)}; got {name!r}")
  split = splits.published(name)
  root = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
  root = root.parents[1] if (root / "dataset_info.json").is_file() else root
  source = _source(root) or _fetched(root, download)

  def make() -> tuple[store.Arrays, Any]:
    images, labels, names = _read_binary(source) if source.name.startswith(_FOLDER) else _read_tfds(root)
    rows = _rows(images, labels, names)
    return {part: np.stack([rows[label] for label in names_of]) for part, names_of in split._asdict().items()}, {}

  arrays, _ = store.load_or_make(name, {"source": store.fingerprint(source)}, make, cache_dir)
  per_class = arrays["train"].shape[1]
  missing = "" if per_class == _PER_CLASS else f"{_PER_CLASS - per_class} of {_PER_CLASS} images of each class"
  if missing and require_complete:
    raise ValueError(f"CIFAR-100 must be whole (require_complete); {source} lacks {missing}.")
  counts = tuple((per_class,) * len(names_of) for names_of in split)
  digest = splits.make_split(*([f"{label}:{per_class}" for label in part] for part in split)).digest
  return image_sets.ImageSet(
    arrays["train"],
    arrays["val"],
    arrays["test"],
    split,
    counts,
    missing,
    digest if missing else split.digest,
  )


def prepare(root: PathLike, archives: PathLike | None = None) -> None:
  """Prepares CIFAR-100 under `root` as array_record files.

  Args:
    root: A tensorflow-datasets root.
    archives: A folder with `cifar-100-binary.tar.gz`, used instead of the network.

  Raises:
    ConnectionError: within seconds, if there is no network.
    FileNotFoundError: when `archives` lacks the file.
  """
  tfds_files.prepare(root, "cifar100", archives, url=_URL, reader="tensorflow_datasets.image_classification.cifar")


def _source(root: pathlib.Path) -> pathlib.Path | None:
  version = tfds_files.version_dir(root, "cifar100")
  raw = [root / _FOLDER, root / _ARCHIVE, *([root] if store.own_name(root) == _FOLDER else [])]
  return version or next((path for path in raw if path.exists()), None)


def _fetched(root: pathlib.Path, download: bool) -> pathlib.Path:
  reason = "download is off"
  if download:
    try:
      prepare(root)
    except ConnectionError as error:
      reason = str(error)
  if source := _source(root):
    return source
  raise DatasetNotFoundError(
    f"CIFAR-100 was not found in {root}, and was not fetched: {reason}. Looked for cifar100/<version>/ as"
    f" tensorflow-datasets prepares it, for {_FOLDER}/ and for {_ARCHIVE} (the binary version: the Python version is a"
    " pickle, which is not read). To prepare it where there is internet: warpjax prepare cifar100"
    " --data_dir=DIR; from the archive: the same with --archives=FOLDER. Then pass --data_dir=DIR."
  )


def _read_tfds(root: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
  builder = tfds_files.open_builder(root, "cifar100")
  raw = {"image": tfds_files.import_tfds("cifar100").decode.SkipDecoding()}
  # Records are shuffled; their ids put them in the order of the archive.
  items = []
  for part in ("train", "test"):
    data = builder.as_data_source(part, decoders=raw)
    items += sorted((item["id"], int(item["label"]), item["image"]) for item in data)
  images = decode.decode([image for *_, image in items], decode.Decoder(32, "RGB"))
  return images, np.array([label for _, label, _ in items]), list(builder.info.features["label"].names)


def _read_binary(source: pathlib.Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
  data = b""
  for name in ("train.bin", "test.bin"):
    part = _file(source, name)
    if not part or len(part) % _RECORD:
      raise ValueError(f"{source}: {name} must hold records of {_RECORD} bytes; it is cut short, {len(part)} bytes.")
    data += part
  records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
  images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  return images, records[:, 1], _file(source, "fine_label_names.txt").decode().split()


def _file(source: pathlib.Path, name: str) -> bytes:
  try:
    if source.is_dir():
      return (source / name).read_bytes()
    with tarfile.open(source) as archive:
      member = archive.extractfile(f"{_FOLDER}/{name}")
      return member.read() if member else b""
  except (FileNotFoundError, KeyError) as error:
    raise ValueError(f"{source} must hold {name}.") from error
  except (EOFError, tarfile.TarError, OSError, zlib.error) as error:
    raise ValueError(f"{source} cannot be read ({str(error).splitlines()[0]}); fetch it again.") from error


def _rows(images: np.ndarray, labels: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
  """The images of each class, in their order."""
  if len(labels) and int(labels.max()) >= len(names):
    raise ValueError(f"labels must be below the {len(names)} names; got {int(labels.max())}")
  numbers, expected = np.bincount(labels, minlength=len(names)).tolist(), set(splits.published("cifar_fs").all)
  if len(names) == len(expected) and (others := sorted(set(names) ^ expected)):
    raise ValueError(f"CIFAR-100 must have its own classes; {', '.join(others[:3])} are not in both.")
  if len(set(numbers)) != 1 or set(names) != expected:
    raise ValueError(
      f"CIFAR-100 must have 100 classes with the same number of images; found {len(names)} with {min(numbers)} to"
      f" {max(numbers)}."
    )
  return {name: images[labels == i] for i, name in enumerate(names)}
