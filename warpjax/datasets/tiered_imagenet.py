"""tiered-ImageNet: 608 classes of ImageNet in 34 categories, split by category so that test classes are far away."""

from __future__ import annotations

from warpjax.datasets import decode, image_sets, splits
from warpjax.datasets.store import PathLike


def published() -> image_sets.Published:
  """The published facts of the whole set; its classes have 732 to 1,300 images each."""
  return image_sets.Published(
    "tiered-ImageNet",
    ("tiered_imagenet", "tiered-imagenet", "tieredImagenet", "tieredImageNet"),
    splits.published("tiered_imagenet"),
    totals=(448_695, 124_261, 206_209),
  )


def load(
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
  *,
  size: int = 84,
  resample: decode.Resample = "lanczos",
  require_complete: bool = False,
) -> image_sets.ImageSet:
  """tiered-ImageNet, or a part of it, from image files.

  Args:
    data_dir: The folder, or one with `tiered_imagenet/` in it, in a shape that `mini_imagenet.load` takes.
    cache_dir: Where the arrays are kept, 16 GB for the whole set; `None` for the user's cache.
    size: Height and width in pixels.
    resample: Pillow's filter, for images of another size.
    require_complete: Whether to refuse an incomplete set.

  Returns:
    An `ImageSet`; pass its `counts` to the sampler, since classes differ in their number of images.

  Raises:
    DatasetNotFoundError: if the images are absent; they cannot be downloaded.
    ValueError: for files that are unreadable, misplaced or duplicated, or for an incomplete set if it must be complete.

  Reference:
    Ren et al. 2018, arXiv 1803.00676.
  """
  return image_sets.load(
    "tiered_imagenet",
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
    archives: A folder of a shape that `load` takes, a zip archive of one, or a folder with `tiered_imagenet.zip`.

  Raises:
    DatasetNotFoundError: if the images are absent; they cannot be downloaded.
    ValueError: for a file that is not a zip archive or is damaged, and for misplaced image files.
  """
  image_sets.prepare("tiered_imagenet", published(), root, archives)
