"""Image sets as tensorflow-datasets keeps them, read and prepared without TensorFlow: folders of files, Omniglot."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from warpjax.datasets import splits, tfds_files
from warpjax.datasets.store import PathLike

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_FEATURES = {"image", "label", "file_name"}
_OMNIGLOT = "https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip"


class Record(pathlib.PurePosixPath):
  """An image of a prepared set: the path `<class>/<file name>` it came from, and the bytes of that file."""

  source: Any
  index: int

  def read_bytes(self) -> bytes:
    """The image file."""
    return bytes(self.source[self.index]["image"])


File = pathlib.Path | Record


def find(root: PathLike) -> pathlib.Path | None:
  """The prepared `<name>/<version>` that `root` is, or contains; None for another folder."""
  root = pathlib.Path(root)
  return root if (root / "dataset_info.json").is_file() else tfds_files.newest(root)


def read(folder: pathlib.Path) -> dict[str, dict[str, list[Record]]]:
  """The images of a prepared set by split and class, both sorted.

  Args:
    folder: Its `<name>/<version>`.

  Raises:
    DatasetNotFoundError: when it was prepared in a file format that only TensorFlow reads.
    ValueError: when it is not a set as `prepare` makes it.
  """
  name, builder = folder.parent.name, tfds_files.open_folder(folder)
  features, parts = builder.info.features, builder.info.splits
  if set(features) != _FEATURES or not set(_SPLITS.values()) <= set(parts):
    raise ValueError(
      f"{folder} must have the features {', '.join(sorted(_FEATURES))} and the splits {', '.join(_SPLITS.values())}, "
      f"as warpjax prepare {name} makes them; got {', '.join(features)} and {', '.join(parts)}."
    )
  decoders = {"image": tfds_files.import_tfds(name).decode.SkipDecoding()}
  return {part: _records(builder.as_data_source(of, decoders=decoders), features) for part, of in _SPLITS.items()}


def _records(source: Any, features: Any) -> dict[str, list[Record]]:
  records: dict[str, list[Record]] = {}
  for index, item in enumerate(source):
    label = features["label"].int2str(int(item["label"]))
    record = Record(label, bytes(item["file_name"]).decode())
    record.source, record.index = source, index
    records.setdefault(label, []).append(record)
  return {label: sorted(records[label]) for label in sorted(records)}


def prepare(
  root: PathLike,
  name: str,
  files: Mapping[str, Mapping[str, Sequence[File]]],
  split: splits.Split,
  *,
  title: str,
) -> None:
  """Prepares image files under `root` as array_record files, in this order, without re-encoding.

  Args:
    root: A tensorflow-datasets root.
    name: Name of the set.
    files: By split and class.
    split: The names of all classes, which number the labels.
    title: Title of the set, for its description.
  """
  tfds = tfds_files.import_tfds(name)
  pathlib.Path(root).mkdir(parents=True, exist_ok=True)
  builder = _builder(tfds, name, files, split, title)(data_dir=str(root), file_format="array_record")
  with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as downloads:  # tensorflow-datasets wants one
    builder.download_and_prepare(download_dir=downloads)


def _builder(
  tfds: Any, dataset: str, files: Mapping[str, Mapping[str, Sequence[File]]], split: splits.Split, title: str
) -> Any:
  """The class of the builder; tensorflow-datasets reads the prepared set by name, without it."""

  class ImageFiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Images by class."""

    name = dataset
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> Any:
      features = {
        # No format of encoding: files keep their bytes, and a set may hold several formats.
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=split.all),
        "file_name": tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        description=f"{title}, in the class split {split.digest}.",
        features=tfds.features.FeaturesDict(features),
        supervised_keys=("image", "label"),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
      del dl_manager
      return {of: self._generate_examples(files[part]) for part, of in _SPLITS.items()}

    def _generate_examples(self, classes: Mapping[str, Sequence[File]]) -> Iterator[tuple[int, dict[str, Any]]]:
      pairs = ((label, path) for label, paths in classes.items() for path in paths)
      for key, (label, path) in enumerate(pairs):
        yield key, {"image": path.read_bytes(), "label": label, "file_name": path.name}

  return ImageFiles


def has_omniglot(root: PathLike) -> bool:
  """Whether `root` holds a finished `omniglot/<version>`; asked without importing tensorflow-datasets."""
  return tfds_files.version_dir(root, "omniglot") is not None


def read_omniglot(root: PathLike) -> dict[str, list[bytes]]:
  """The image files of Omniglot's background and evaluation sets under a prepared root, by `"Alphabet/characterNN"`.

  Raises:
    DatasetNotFoundError: when the set was prepared in a file format that only TensorFlow reads.
  """
  builder = tfds_files.open_builder(root, "omniglot")
  raw = {"image": tfds_files.import_tfds("omniglot").decode.SkipDecoding()}
  alphabets = builder.info.features["alphabet"]
  classes: dict[str, list[bytes]] = {}
  for split in ("train", "test"):
    for item in builder.as_data_source(split, decoders=raw):
      name = f"{alphabets.int2str(int(item['alphabet']))}/character{int(item['alphabet_char_id']) + 1:02d}"
      classes.setdefault(name, []).append(item["image"])
  return classes


def prepare_omniglot(root: PathLike, archives: PathLike | None = None) -> None:
  """Prepares Omniglot under `root` as array_record files.

  Args:
    root: A tensorflow-datasets root.
    archives: A folder with the four upstream archives, used instead of the network.

  Raises:
    ConnectionError: within seconds, if there is no network.
    FileNotFoundError: when `archives` lacks one of the four files.
    ValueError: if one of them is not a zip archive, or would write outside of its folder.
  """
  reader = "tensorflow_datasets.image_classification.omniglot"
  tfds_files.prepare(root, "omniglot", archives, url=_OMNIGLOT, reader=reader)
