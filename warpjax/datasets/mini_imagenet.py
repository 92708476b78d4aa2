"""mini-ImageNet: 100 classes of 600 colour images, 84x84, in the split of Ravi and Larochelle."""

from __future__ import annotations

from warpjax.datasets import decode, image_sets, splits
from warpjax.datasets.store import PathLike

# The published set has these images twice, most of them in train and in val.
_IDENTICAL = (
  ("n0209183100000748", "n0209183100001256"),
  ("n0210855100000121", "n0211127700000207"),
  ("n0388860500000646", "n0353578000000512"),
  ("n0388860500000663", "n0353578000000484"),
  ("n0388860500000751", "n0353578000000601"),
  ("n0388860500000943", "n0353578000000253"),
  ("n0388860500001285", "n0353578000001275"),
  ("n0438903300000447", "n0295082600000439"),
)


def published() -> image_sets.Published:
  """The published facts of the whole set."""
  return image_sets.Published(
    "mini-ImageNet",
    ("mini_imagenet", "mini-imagenet", "miniImagenet", "miniImageNet"),
    splits.published("mini_imagenet"),
    per_class=600,
    identical=frozenset(map(frozenset, _IDENTICAL)),
  )


def load(
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  size: int = 84,
  resample: decode.Resample = "lanczos",
  require_complete: bool = False,
) -> image_sets.ImageSet:
  """mini-ImageNet, or a part of it, from image files.

  Args:
    data_dir: The folder, or one with `mini_imagenet/` in it, in one of three shapes: `{train,val,test}/<wnid>/*`;
      `<wnid>/*`; `{train,val,test}.csv` next to the images or `images/`; or a tensorflow-datasets root where `prepare`
      put it. `None`: `TFDS_DATA_DIR`.
    cache_dir: Where the arrays are kept; `None` for `$XDG_CACHE_HOME/warpjax` or `~/.cache/warpjax`.
    size: Height and width in pixels.
    resample: Pillow's filter, for images of another size.
    require_complete: Whether to refuse an incomplete set.

  Returns:
    An `ImageSet`; `train` is `[64, 600, 84, 84, 3]` for the whole set.

  Raises:
    DatasetNotFoundError: if the images are absent; they cannot be downloaded.
    ValueError: for files that are unreadable, misplaced or duplicated, or for an incomplete set if it must be complete.

  Reference:
    Vinyals et al. 2016, arXiv 1606.04080; split of Ravi and Larochelle 2017.
  """
  return image_sets.load(
    "mini_imagenet",
    published(),
    data_dir,
    cache_dir,
    size=size,
    resample=resample,
    require_complete=require_complete,
  )


def prepare(root: PathLike, archives: PathLike | None = None) -> None:
  """Prepares image files as a tensorflow-datasets data set under `root`, without re-encoding them.

  Args:
    root: A tensorflow-datasets root.
    archives: A folder of a shape that `load` takes, a zip archive of one, or a folder with `mini_imagenet.zip`.

  Raises:
    DatasetNotFoundError: if the images are absent; they cannot be downloaded.
    ValueError: for a file that is not a zip archive or is damaged, and for misplaced image files.
  """
  image_sets.prepare("mini_imagenet", published(), root, archives)
