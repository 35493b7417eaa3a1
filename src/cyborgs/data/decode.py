"""Bytes to the picture that a viewer shows, or an error that names the file.

Measured on thousands of odd and malformed public pictures: simplejpeg in strict mode and Pillow neither crash nor
invent pixels; OpenCV and torchvision do. What they pass over in silence (missing scans, checksums of PNG, sizes that
are read only after memory was taken for them) is checked in ``container.py``. Colour profiles are not applied.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from cyborgs.data import container
from cyborgs.data.container import JpegLayout, Refused
from cyborgs.errors import UserError, printable

MAX_PIXELS = 178_956_970
"""Default limit of a picture, the one above which Pillow refuses by itself."""

MAX_MEMORY = 1 << 30
"""Bytes that decoding one picture may take."""

BACKGROUND = 255
"""Grey level that shines through transparent pixels: white, as on a page."""

Pixels = NDArray[np.uint8]

_WIDTH, _HEIGHT, _ORIENTATION = 0x0100, 0x0101, 0x0112
_BYTES_PER_PIXEL = {"JPEG": 14, "WEBP": 20, "AVIF": 12, "JPEG2000": 20}
"""Most memory that decoders take, the pixels that are returned included; measured on 30 million pixels."""
_PLAIN_JPEG_BYTES_PER_PIXEL = 6
_OTHER_BYTES_PER_PIXEL = 8

_BAND = 1 << 20
"""Pixels that are converted at once."""

_LOST = ("remature end", "bad Huffman", "bad arithmetic", "instead of RST", "Inconsistent progression")
"""What libjpeg's first warning contains where pixels are made up: others say that something else is odd."""


class UnreadableImage(UserError):
    """A file that gives no picture: ``name`` and ``reason``. Survives pickling, so it crosses processes."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}."


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture of any kind into uint8 (H, W, 3), RGB, upright, contiguous.

    The kind is told by the bytes, the size by the header, before anything is decoded. Orientation (EXIF) is applied,
    16-bit samples keep their upper byte, transparency shows :data:`BACKGROUND`, animations give their first frame.

    Raises:
        UnreadableImage: for every file that is no complete picture of a known kind, or has more than ``max_pixels``
            (Pillow's own ``Image.MAX_IMAGE_PIXELS`` holds beside it for all that is not plain JPEG).
    """
    try:
        kind = container.kind_of(data)
        return _jpeg(data, max_pixels) if kind == "JPEG" else _pillow(data, kind, max_pixels)
    except Exception as error:  # Pillow fails with OSError, ValueError, TypeError, SyntaxError, struct.error, ...
        raise UnreadableImage(name, _reason(error)) from error


def _reason(error: Exception) -> str:
    """One line without the addresses that Pillow puts into some messages: a result file must be reproducible."""
    if isinstance(error, UnidentifiedImageError):
        return "damaged: its header cannot be read"
    if isinstance(error, Image.DecompressionBombError):
        return "claims more pixels than Pillow's limit"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    text = printable(" ".join(str(error).split()).rstrip("."))
    if isinstance(error, Refused):
        return text
    return (
        f"damaged: {text}" if isinstance(error, OSError) and text else f"damaged: {type(error).__name__} {text}".strip()
    )


def _check_size(width: int, height: int, max_pixels: int, bytes_per_pixel: int) -> None:
    if width * height > max_pixels:
        raise Refused(f"claims {width} x {height} pixels, more than the limit of {max_pixels}")
    if width * height * bytes_per_pixel > MAX_MEMORY:
        megabytes = width * height * bytes_per_pixel >> 20
        raise Refused(
            f"claims {width} x {height} pixels, which take {megabytes} MB to decode, "
            f"more than the limit of {MAX_MEMORY >> 20}"
        )


def _jpeg(data: bytes, max_pixels: int) -> Pixels:
    """simplejpeg, strict; Pillow where it refuses, and for four channels, where Adobe's inversion must be undone."""
    layout = container.jpeg_layout(data)
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        plain = space not in ("CMYK", "YCCK")
        odd = layout.progressive or not plain
        _check_size(width, height, max_pixels, _BYTES_PER_PIXEL["JPEG"] if odd else _PLAIN_JPEG_BYTES_PER_PIXEL)
        container.check_scans(data, layout)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB" if plain else "CMYK")
    except Refused:
        raise
    except (ValueError, KeyError) as error:  # KeyError: ways of subsampling that simplejpeg has no name for
        return _odd_jpeg(data, layout, str(error), max_pixels)
    if not plain:
        del pixels
        return _pillow(data, "JPEG", max_pixels)
    if not layout.metadata:
        return pixels
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return _upright(pixels, _orientation(image))


def _odd_jpeg(data: bytes, layout: JpegLayout, warning: str, max_pixels: int) -> Pixels:
    """What strict decoding refuses with a warning that Pillow does not tell, if it is complete nevertheless."""
    if any(text in warning for text in _LOST):
        early = "remature end" in warning
        raise Refused("truncated: the JPEG data ends too early" if early else f"damaged: {warning}")
    pixels = _pillow(data, "JPEG", max_pixels)
    container.check_scans(data, layout)
    # Pillow fills what is missing with grey, without a word. Data that is added changes the picture only then.
    if not np.array_equal(pixels, _pillow(container.with_more_data(data, layout), "JPEG", max_pixels)):
        raise Refused("truncated: the JPEG data ends too early")
    return pixels


def _pillow(data: bytes, kind: str, max_pixels: int) -> Pixels:
    if kind not in Image.OPEN:
        Image.init()
        if kind not in Image.OPEN:
            raise Refused(f"this Pillow is built without {kind}")
    cost = _BYTES_PER_PIXEL.get(kind, _OTHER_BYTES_PER_PIXEL)
    if kind == "WEBP":
        _check_size(*container.webp_size(data), max_pixels, cost)
    elif kind == "TIFF":
        container.check_tags(data)
    elif kind == "GIF":
        container.check_gif(data)
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        _check_size(*image.size, max_pixels, cost)
        if kind == "PNG":  # after the size: a bomb is refused from its header
            container.check_png(data)
        if kind == "TIFF" and _covered(image) < image.width * image.height:
            raise Refused("damaged: its strips or tiles are fewer than the picture has")
        image.load()
        # Pillow leaves rows that a PNG lacks at zero, without a word. Counting them costs a third of the decoding.
        if kind == "PNG" and (
            image.info.get("interlace") or not np.asarray(image.crop((0, image.height - 1, *image.size))).any()
        ):
            container.check_png_rows(data)
        # After load: Pillow turns TIFF files itself while loading, and then removes the tag.
        orientation = _orientation(image)
        return _upright(_rgb(image), orientation)


def _covered(image: ImageFile.ImageFile) -> int:
    """Pixels of the strips or tiles that are going to be decoded."""
    extents = {tile.extents for tile in image.tile if tile.extents}
    return sum((right - left) * (bottom - top) for left, top, right, bottom in extents)


def _rgb(image: Image.Image) -> Pixels:
    """uint8 (H, W, 3) of a loaded picture of any mode, converted in bands: Pillow's copies are larger than ours."""
    width, height = image.size
    rows = max(1, _BAND // max(1, width))
    if rows >= height:
        return _band(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        pixels[top : top + rows] = _band(image.crop((0, top, width, min(height, top + rows))))
    return pixels


def _band(image: Image.Image) -> Pixels:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bit(image)
    if image.mode == "F":
        raise Refused("floating-point samples have no agreed white")
    if not image.has_transparency_data:
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)


def _sixteen_bit(image: Image.Image) -> Pixels:
    """Grey of 16 bits: the upper byte, as Pillow itself does for colour; its convert("RGB") would clip at 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise Refused("samples of 32 bits have no agreed white")
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = BACKGROUND
    return np.repeat(grey[..., None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; what is absent or damaged is 1, as viewers have it."""
    try:
        exif = image.info.get("exif")
        if isinstance(exif, bytes):
            container.check_tags(exif.removeprefix(b"Exif\0\0"))
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata of a picture that is fine; Pillow fails with anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def orientation(data: bytes) -> int:
    """EXIF orientation 1 to 8 that :func:`decode` applies: what a tool that ignores EXIF does not turn.

    From 5 on such a tool sees width and height exchanged. 1 where there is none, or it cannot be read.
    """
    try:
        kind = container.kind_of(data)
        if kind == "JPEG" and not container.jpeg_layout(data).metadata:
            return 1
        if kind == "TIFF":
            container.check_tags(data)
        with Image.open(io.BytesIO(data), formats=(kind,)) as image:
            return _orientation(image)
    except Exception:  # the picture itself is judged by decode
        return 1


def displayed_size(path: Path, name: str) -> tuple[int, int]:
    """(height, width) of a file's picture as it is displayed, from its header. Raises UnreadableImage."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            # Newer Pillows have turned the size of a TIFF already, older ones do so in load().
            if isinstance(picture, TiffImageFile):
                width, height = picture.tag_v2[_WIDTH], picture.tag_v2[_HEIGHT]
            # Of a PNG without EXIF in its header Pillow would decode the pixels to look behind them.
            silent = picture.format == "PNG" and "exif" not in picture.info
            turned = not silent and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # Pillow fails with many kinds on damaged files
        raise UnreadableImage(name, f"no readable picture ({error})") from error
    return (width, height) if turned else (height, width)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror by EXIF orientation; contiguous."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
