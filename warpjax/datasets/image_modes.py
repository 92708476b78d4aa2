"""Decodes an image file as a viewer shows it, to 8-bit grey or RGB, for every mode of Pillow.

| in the file | returned |
|---|---|
| transparency: LA, La, PA, RGBA, RGBa, a transparent colour, a palette with alpha | composed over white |
| grey of more than 8 bits: I;16 in every byte order, 12 bits in TIFF, 16 bits in PNG and PGM | scaled by its range |
| colour of 16 bits | the upper byte, as Pillow reads it |
| palettes, CMYK, YCbCr, LAB, HSV, RGBX, 1 bit | converted by Pillow, colours by way of RGB |
| several frames or pages | the first |
| an EXIF orientation | turned upright |
| I and F otherwise: integers of 32 bits and floats, whose range is in no file | refused |

Colour profiles and gamma values are ignored, as Pillow does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
  from PIL.Image import Image

Mode = Literal["L", "RGB"]

FRAMES = "have several frames or pages, of which the first was taken"
TURNED = "were turned upright as their EXIF orientation says"
DEEP = "had more than 8 bits a channel, scaled to 8"
COMPOSED = "had transparent pixels, composed over white"
BLANK = "have a single colour over white, such as white strokes on a transparent background"

_ORIENTATION = 0x0112
# The number of a method of Pillow's `transpose`, by EXIF orientation.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
_PHOTOMETRIC, _BITS = 262, 258  # TIFF's tags
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_GREY = ("1", "L", "LA", "La")


class UnsupportedImageError(ValueError):
  """An image whose values would have to be guessed."""


def seen(image: Image, mode: Mode) -> tuple[Image, tuple[str, ...]]:
  """An opened image as a viewer shows it, and the changes other than its mode.

  Args:
    image: As `PIL.Image.open` returns it.
    mode: `"L"` (one channel) or `"RGB"`.

  Returns:
    The image in `mode`, of 8 bits a channel, and those of the changes above that were made.

  Raises:
    UnsupportedImageError: for integers of 32 bits, floats, and 16-bit colour with a transparent colour.

  Example:
    >>> from PIL import Image
    >>> black = Image.fromarray(np.array([[[0, 51], [0, 255]]], np.uint8))  # a fifth of it, and all of it
    >>> image, changes = seen(black, "L")
    >>> np.asarray(image).tolist(), changes
    ([[204, 0]], ('had transparent pixels, composed over white',))
  """
  changes = [FRAMES] * (getattr(image, "n_frames", 1) > 1)
  deep, scale = _stored(image)
  orientation, turned = _read(image)
  if scale > 1 and "transparency" in image.info:
    image.info["transparency"] *= scale  # Pillow scales only the pixels
  changes += [TURNED] * turned
  if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
    what = "floats" if image.mode == "F" else "integers of 32 bits, or of 16 with a sign"
    raise UnsupportedImageError(f"mode {image.mode}: {what}, whose range is not known; save it with 8 or 16 bits")
  transparent = _has_transparency(image)
  if image.mode.startswith("I"):
    image, deep = _grey(image), True
  elif deep and transparent and image.mode not in _ALPHA:
    raise UnsupportedImageError("16-bit colour with a transparent colour; save it with an alpha channel")
  changes += [DEEP] * deep
  if transparent:
    image, composed = _over_white(image)
    changes += composed
  if image.mode not in (*_GREY, mode):
    image = image.convert("RGB")
  image = image.convert(mode)
  turn: Callable[[Any], Image] = image.transpose
  return turn(_TURNS[orientation]) if orientation in _TURNS else image, tuple(changes)


def _stored(image: Image) -> tuple[bool, int]:
  """Whether the file has more than 8 bits in a channel, and the factor of a grey value of 2 or 4 bits."""
  # How the pixels are stored, which Pillow forgets once they are read. BGR;16 has 5, 6 and 5 bits.
  tiles = getattr(image, "tile", [])
  stored = str(tiles).replace("BGR;16", "")
  top = max((tile[3][1] for tile in tiles if str(tile[0]).startswith("ppm")), default=255)
  return ";16" in stored or top > 255, 85 if "L;2" in stored else 17 if "L;4" in stored else 1


def _read(image: Image) -> tuple[int, bool]:
  """Reads the pixels: the EXIF orientation that they have, and whether the file had one."""
  # Pillow turns a TIFF by itself when it reads the pixels; a PNG may name its orientation behind them.
  before = _orientation(image) if image.format == "TIFF" else 1
  image.load()
  after = _orientation(image)
  return after, before in _TURNS or after in _TURNS


def _orientation(image: Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except Exception:  # damaged metadata, for which each parser of Pillow has its own errors, are ignored
    return 1


def _has_transparency(image: Image) -> bool:
  of_palette = image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")
  return image.mode in _ALPHA or "transparency" in image.info or of_palette


def _grey(image: Image) -> Image:
  """Grey of more than 8 bits as L, or as LA if the file names a transparent value."""
  from PIL import Image

  tags = getattr(image, "tag_v2", {})
  top = 2 ** int(np.ravel(tags.get(_BITS, 16))[0]) - 1
  values = np.asarray(image).astype(np.int64)
  shown = (255 * values + top // 2) // top
  if tags.get(_PHOTOMETRIC) == 0:  # 0 is white, which Pillow only applies to 8 bits
    shown = 255 - shown
  if (key := image.info.get("transparency")) is None:
    return Image.fromarray(shown.astype(np.uint8))
  return Image.fromarray(np.stack([shown, 255 * (values != key)], axis=-1).astype(np.uint8))


def _over_white(image: Image) -> tuple[Image, list[str]]:
  from PIL import Image

  whole = image.convert("LA" if image.mode in _GREY else "RGBA")
  alpha = whole.getchannel("A")
  opaque = whole.convert("L" if image.mode in _GREY else "RGB")
  if alpha.getextrema() == (255, 255):
    return opaque, []
  paper = Image.new(opaque.mode, image.size, "white")
  paper.paste(opaque, mask=alpha)
  one_colour = all(low == high for low, high in np.reshape(paper.getextrema(), (-1, 2)))
  return paper, [COMPOSED] + [BLANK] * one_colour
