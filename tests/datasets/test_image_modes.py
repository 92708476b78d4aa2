"""Every mode and format that Pillow opens gives the values that a person sees, or an error that names the file."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.datasets import image_files
from warpjax.datasets import decode, image_modes, mini_imagenet, omniglot

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
DEEP = (257 * np.arange(256)).astype(np.uint16).reshape(16, 16)
ALPHA = RAMP[::-1].copy()  # 240..255 in the first row, so that every row mixes another share of white
COLOURS = np.stack([RAMP, RAMP.T, ALPHA], axis=-1)


def saved(image, kind="PNG", **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def decoded(data, mode="L", size=16):
  image, original = decode.Decoder(size, mode)(data)
  return (image[..., 0] if mode == "L" else image).astype(int), original


def on_white(values, alpha=ALPHA):
  alpha = alpha.reshape(*alpha.shape, *[1] * (np.ndim(values) - 2)) / 255
  return np.asarray(values) * alpha + 255 * (1 - alpha)


def luma(colours):
  return np.asarray(colours) @ (0.299, 0.587, 0.114)


GREY_FILES = {
  "8 bits": (Image.fromarray(RAMP), ("PNG", "TIFF", "BMP", "PPM", "GIF", "JPEG2000"), ()),
  "I;16": (Image.fromarray(DEEP), ("PNG", "TIFF", "PPM", "JPEG2000"), (image_modes.DEEP,)),
  "I;16B": (Image.frombytes("I;16B", (16, 16), DEEP.astype(">u2").tobytes()), ("PNG", "TIFF"), (image_modes.DEEP,)),
  "I;16L": (Image.frombytes("I;16L", (16, 16), DEEP.astype("<u2").tobytes()), ("TIFF",), (image_modes.DEEP,)),
  "I": (Image.fromarray(DEEP.astype(np.int32)), ("PPM",), (image_modes.DEEP,)),
}


@pytest.mark.parametrize("name", GREY_FILES)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_grey_ramp_stays_the_ramp(name, mode):
  image, kinds, changes = GREY_FILES[name]
  for kind in kinds:
    shown, original = decoded(saved(image, kind), mode)
    np.testing.assert_array_equal(shown, RAMP if mode == "L" else np.stack(3 * [RAMP], -1), err_msg=kind)
    assert original.changes == changes, kind


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_every_byte_order_in_memory(mode):
  values = DEEP.astype({"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2"))
  shown, changes = image_modes.seen(Image.frombytes(mode, (16, 16), values.tobytes()), "L")
  np.testing.assert_array_equal(shown, RAMP)
  assert changes == (image_modes.DEEP,)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_whose_0_is_white(compression):
  data = saved(Image.fromarray(DEEP), "TIFF", tiffinfo={262: 0}, compression=compression)
  np.testing.assert_array_equal(decoded(data)[0], 255 - RAMP)


def tiff(tags, pixels):
  """A TIFF with these tags, of 16 bits each, and pixels as they are."""
  entries = {**tags, 273: 8 + 2 + 12 * (len(tags) + 2) + 4, 279: len(pixels)}
  rows = (struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(entries.items()))
  return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(rows) + b"\0\0\0\0" + pixels


def test_a_tiff_of_12_bits_has_the_range_of_12_bits():
  values = np.round(np.linspace(0, 4095, 256)).astype(np.uint16).reshape(-1, 2)
  packed = np.stack([values[:, 0] >> 4, (values[:, 0] & 15) << 4 | values[:, 1] >> 8, values[:, 1] & 255], axis=-1)
  tags = {256: 16, 257: 16, 258: 12, 259: 1, 262: 1, 277: 1, 278: 16}
  shown, original = decoded(tiff(tags, packed.astype(np.uint8).tobytes()))
  np.testing.assert_array_equal(shown, RAMP)
  assert original.mode == "I;16" and original.changes == (image_modes.DEEP,)


def test_two_levels_are_0_and_255():
  bits = RAMP % 3 == 0
  for kind in ("PNG", "TIFF", "BMP", "PPM"):
    np.testing.assert_array_equal(decoded(saved(Image.fromarray(bits), kind))[0], 255 * bits, err_msg=kind)


def with_alpha(mode):
  colours = np.stack([RAMP, ALPHA], -1) if mode in ("LA", "La") else np.dstack([COLOURS, ALPHA])
  whole = Image.fromarray(colours, "LA" if mode in ("LA", "La") else "RGBA")
  return whole.convert(mode)


ALPHA_FILES = [("LA", "PNG"), ("LA", "TIFF"), ("RGBA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP"), ("RGBA", "JPEG2000")]


@pytest.mark.parametrize(("mode", "kind"), ALPHA_FILES)
def test_transparency_is_composed_over_white(mode, kind):
  data = saved(with_alpha(mode), kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
  expected = on_white(RAMP if mode == "LA" else COLOURS)
  for target in ("L", "RGB"):
    shown, original = decoded(data, target)
    wanted = expected if mode == "LA" else luma(expected) if target == "L" else expected
    wanted = np.stack(3 * [wanted], -1) if (mode, target) == ("LA", "RGB") else wanted
    np.testing.assert_allclose(shown, wanted, atol=1.01)
    assert original.mode == mode and original.changes == (image_modes.COMPOSED,)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_colours_are_composed_too(mode):
  # In this mode a value is at most its alpha, so what was rounded there is rounded here.
  shown, changes = image_modes.seen(with_alpha(mode), "RGB")
  expected = on_white(RAMP if mode == "La" else COLOURS)
  np.testing.assert_allclose(np.asarray(shown, int), np.stack(3 * [expected], -1) if mode == "La" else expected, atol=2)
  assert changes == (image_modes.COMPOSED,)


@pytest.mark.parametrize(
  ("kind", "transparency"),
  [("PNG", "none"), ("PNG", "index"), ("PNG", "levels"), ("GIF", "none"), ("GIF", "index"), ("TIFF", "none")],
)
def test_palettes(kind, transparency):
  palette = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)], -1).astype(np.uint8)
  image = Image.fromarray(RAMP)
  image.putpalette(palette.tobytes())
  alpha = {"none": np.full(256, 255), "index": np.where(np.arange(256) == 9, 0, 255), "levels": np.arange(256)}
  option = {"none": {}, "index": {"transparency": 9}, "levels": {"transparency": bytes(range(256))}}[transparency]
  shown, original = decoded(saved(image, kind, **option), "RGB")
  np.testing.assert_allclose(shown, on_white(palette[RAMP], alpha[transparency][RAMP]), atol=1)
  assert original.mode == "P" and original.changes == (image_modes.COMPOSED,) * (transparency != "none")


def test_a_palette_with_alpha_of_its_own():
  image = Image.fromarray(RAMP)
  image.putpalette(np.stack([np.arange(256)] * 3 + [np.arange(256)[::-1]], -1).astype(np.uint8).tobytes(), "RGBA")
  expected = on_white(RAMP, 255 - RAMP)
  for each in (image, image.convert("PA")):
    np.testing.assert_allclose(np.asarray(image_modes.seen(each, "RGB")[0])[..., 1], expected, atol=1)


@pytest.mark.parametrize(
  ("image", "colour", "hidden"),
  [
    (Image.fromarray(RAMP), 9, RAMP == 9),
    (Image.fromarray(DEEP), 257 * 9, RAMP == 9),
    (Image.fromarray(COLOURS), tuple(map(int, COLOURS[2, 3])), np.all(COLOURS[2, 3] == COLOURS, -1)),
  ],
  ids=["L", "I;16", "RGB"],
)
def test_a_transparent_colour_is_white(image, colour, hidden):
  shown, original = decoded(saved(image, transparency=colour), "RGB")
  expected = np.array(COLOURS if image.mode == "RGB" else np.stack(3 * [RAMP], -1))
  expected[hidden] = 255
  np.testing.assert_array_equal(shown, expected)
  assert image_modes.COMPOSED in original.changes and hidden.sum() >= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits_is_white(bits):
  """The value in the file is one of `2 ** bits`; the pixels that Pillow returns are of 256."""
  values = RAMP & (2**bits - 1)
  packed = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(16, -1), axis=-1)
  for key in {0, 1, 2**bits - 1}:
    shown, original = decoded(png_of(packed, (16, 16, bits, 0), struct.pack(">H", key)))
    expected = values.astype(int) * (255 // (2**bits - 1))
    np.testing.assert_array_equal(shown, np.where(values == key, 255, expected))
    assert image_modes.COMPOSED in original.changes and image_modes.DEEP not in original.changes
  shown, original = decoded(png_of(packed, (16, 16, bits, 0)))
  np.testing.assert_array_equal(shown, values.astype(int) * (255 // (2**bits - 1)))
  assert original.changes == ()


def test_an_alpha_that_hides_nothing_is_no_transparency():
  image = Image.fromarray(np.dstack([COLOURS, np.full_like(RAMP, 255)]))
  shown, original = decoded(saved(image), "RGB")
  np.testing.assert_array_equal(shown, COLOURS)
  assert original == decode.Original((16, 16), "RGBA")


@pytest.mark.parametrize(("ink", "changes"), [(0, ()), (255, (image_modes.BLANK,))])
def test_strokes_on_a_transparent_ground(ink, changes):
  strokes = np.where(RAMP % 16 == 3, 255, 0).astype(np.uint8)
  for mode in ("LA", "RGBA"):
    image = Image.new(mode, (16, 16), (ink,) * (len(mode) - 1) + (0,))
    image.putalpha(Image.fromarray(strokes))
    shown, original = decoded(saved(image))
    np.testing.assert_array_equal(shown, np.where(strokes, ink, 255))
    assert original.changes == (image_modes.COMPOSED, *changes)


@pytest.mark.parametrize(
  ("mode", "kind"),
  [("RGB", "PNG"), ("RGB", "TIFF"), ("RGB", "WEBP"), ("RGB", "AVIF"), ("CMYK", "TIFF"), ("CMYK", "JPEG")]
  + [("YCbCr", "TIFF"), ("YCbCr", "JPEG"), ("LAB", "TIFF"), ("HSV", None), ("RGBX", None), ("RGBX", "TIFF")],
)
def test_colour_spaces(mode, kind):
  smooth = np.stack([RAMP, RAMP, 255 - RAMP], -1) if kind in ("JPEG", "AVIF") else COLOURS
  smooth = smooth // 2 + 64 if mode == "LAB" else smooth  # what sRGB can show
  image = Image.fromarray(smooth)
  if mode == "LAB":
    from PIL import ImageCms

    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
  else:
    image = image.convert(mode)
  options = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
  }.get(kind, {})
  near = {"LAB": 7, "YCbCr": 4, "HSV": 6, "CMYK": 3, "RGB": 3 if kind == "AVIF" else 0}.get(mode, 0)
  if kind is None:
    shown = np.asarray(image_modes.seen(image, "RGB")[0], int)
    grey = np.asarray(image_modes.seen(image, "L")[0], int)
  else:
    (shown, original), (grey, _) = (decoded(saved(image, kind, **options), target) for target in ("RGB", "L"))
    assert original.changes == ()
  np.testing.assert_allclose(shown, smooth, atol=near)
  np.testing.assert_allclose(grey, luma(shown), atol=1)


def png16(colours, transparent=None):
  """A PNG of 16 bits a channel, which Pillow reads and does not write."""
  height, width, channels = colours.shape
  colour = struct.pack(">HHH", *transparent) if transparent else None
  return png_of(colours.astype(">u2"), (width, height, 16, {2: 4, 3: 2}[channels]), colour)


def png_of(rows, head, transparent=None):
  """A PNG of rows of bytes; its head is width, height, bits and colour type."""
  header = struct.pack(">IIBBBBB", *head, 0, 0, 0)
  rows = b"".join(b"\0" + row.tobytes() for row in rows)
  file = io.BytesIO()
  file.write(b"\x89PNG\r\n\x1a\n")
  PngImagePlugin.putchunk(file, b"IHDR", header)
  if transparent:
    PngImagePlugin.putchunk(file, b"tRNS", transparent)
  PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(rows))
  PngImagePlugin.putchunk(file, b"IEND")
  return file.getvalue()


def test_colours_of_16_bits_are_told():
  shown, original = decoded(png16(np.stack(3 * [DEEP], -1)), "RGB")
  np.testing.assert_array_equal(shown[..., 1], RAMP)
  assert original == decode.Original((16, 16), "RGB", (image_modes.DEEP,))
  for top, changes in ((65535, (image_modes.DEEP,)), (1023, (image_modes.DEEP,)), (255, ()), (15, ())):
    values = np.arange(256, dtype=">u2") * top // 255
    pixels = np.stack(3 * [values], -1).astype(">u2" if top > 255 else "u1")
    data = b"P6 16 16 %d\n" % top + pixels.tobytes()
    plain = b"P3 16 16 %d\n" % top + " ".join(map(str, pixels.ravel().tolist())).encode()
    for file in (data, plain):
      shown, original = decoded(file, "RGB")
      np.testing.assert_allclose(shown[..., 1].ravel(), values * 255 / top, atol=1)
      assert original.changes == changes, (top, file[:2])


def test_a_bitmap_of_5_6_and_5_bits_has_not_more_than_8():
  masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
  head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 16, 3, 512, 0, 0, 0, 0)
  pixels = np.full((16, 16), 0xFFFF, "<u2")
  pixels[:, :8] = 0x7E0
  data = struct.pack("<2sIHHI", b"BM", 66 + 512, 0, 0, 66) + head + masks + pixels.tobytes()
  shown, original = decoded(data, "RGB")
  assert shown[0, 0].tolist() == [0, 255, 0] and shown[0, 15].tolist() == [255, 255, 255] and original.changes == ()
  shown, original = decoded(png16(np.stack([DEEP, DEEP[::-1]], -1)))
  np.testing.assert_allclose(shown, on_white(RAMP), atol=1)
  assert original.changes == (image_modes.DEEP, image_modes.COMPOSED)


def orientations():
  """The ramp as it is stored under each EXIF orientation, so that a viewer shows the ramp."""
  return {1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.T, 6: np.rot90(RAMP)} | {
    7: RAMP[::-1, ::-1].T,
    8: np.rot90(RAMP, -1),
  }


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  image = Image.fromarray(np.ascontiguousarray(orientations()[orientation]))
  image = image.convert("RGB") if kind == "WEBP" else image
  options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}}.get(kind, {})
  shown, original = decoded(saved(image, kind, exif=exif, **options))
  np.testing.assert_allclose(shown, RAMP, atol=2 if kind == "JPEG" else 0)
  assert original.changes == (image_modes.TURNED,) * (orientation > 1)


def test_a_turned_image_of_16_bits_and_damaged_metadata():
  exif = Image.Exif()
  exif[0x0112] = 6
  turned = Image.fromarray(np.ascontiguousarray(np.rot90(DEEP[:8])))
  image, original = decode.Decoder(16, "L", "nearest")(saved(turned, exif=exif))
  np.testing.assert_array_equal(image[::2, :, 0], RAMP[:8])
  assert original == decode.Original((16, 8), "I;16", (image_modes.TURNED, image_modes.DEEP))
  shown, original = decoded(saved(Image.fromarray(RAMP), exif=b"Exif\0\0no such thing"))
  np.testing.assert_array_equal(shown, RAMP)
  assert original.changes == ()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_taken(kind):
  frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (200, 100)]
  shown, original = decoded(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
  np.testing.assert_allclose(shown, 200, atol=2)
  assert original.changes == (image_modes.FRAMES,)


REFUSED = {
  "floats": (saved(Image.fromarray(DEEP.astype(np.float32)), "TIFF"), "mode F: floats, whose range is not known"),
  "pfm": (saved(Image.fromarray(DEEP.astype(np.float32)), "PPM"), "mode F: floats, whose range is not known"),
  "integers": (saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), "mode I: integers of 32 bits, .* not known"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_have_to_be_guessed_is_refused_by_name(tmp_path, name):
  data, message = REFUSED[name]
  folders = image_files.write(tmp_path / "folders")
  path = sorted(folders.glob("train/*/*"))[0]
  path.write_bytes(data)
  with pytest.raises(ValueError, match=rf"1 image files cannot be read: .*{path.name} \({message}"):
    mini_imagenet.load(folders, tmp_path / "cache")


def test_16_bit_colour_with_a_transparent_colour_is_refused():
  with pytest.raises(ValueError, match="16-bit colour with a transparent colour"):
    decoded(png16(np.stack(3 * [DEEP], -1), transparent=(257, 257, 257)))


def test_what_was_changed_is_counted(tmp_path):
  folders = image_files.write(tmp_path / "folders")
  train, val = (sorted(folders.glob(f"{part}/*/*")) for part in ("train", "val"))
  deep = np.random.default_rng(0).integers(0, 65536, (84, 84)).astype(np.uint16)
  Image.fromarray(deep).save(train[0])
  clear = np.random.default_rng(1).integers(0, 256, (2, 84, 84, 4), np.uint8)
  for path, pixels in zip(val, clear, strict=False):
    Image.fromarray(pixels).save(path)
  data = mini_imagenet.load(folders, tmp_path / "cache")
  assert data.notes == (
    "3 images were of mode I;16, RGBA, converted to RGB",
    f"1 images {image_modes.DEEP}",
    f"2 images {image_modes.COMPOSED}",
  )
  np.testing.assert_array_equal(data.train[0, 0, ..., 2], np.round(deep / 257))


def test_strokes_of_a_transparent_ground_become_omniglot(tmp_path):
  for example in range(2):
    folder = tmp_path / "data" / "images_background" / "Greek" / "character01"
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (28, 28))
    image.paste((0, 0, 0, 255), (4 + example, 4, 12, 12))
    image.save(folder / f"{example}.png")
  data = omniglot.load(tmp_path / "data", tmp_path / "cache", download=False)
  assert set(np.unique(data.images)) == {0, 255} and data.images[0, :, 4:12, 5:12].all()
  assert data.notes == ("2 images were of mode RGBA, converted to L", f"2 images {image_modes.COMPOSED}")
