"""Bytes to the picture that a viewer shows, or an error that names the file.

Measured on thousands of odd and malformed public pictures: simplejpeg in strict mode and Pillow neither crash nor
invent pixels; OpenCV and torchvision do. Colour profiles are not applied.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cyborgs.errors import UserError

MAX_PIXELS = 178_956_970
"""Default limit of a picture, the one above which Pillow refuses by itself."""

BACKGROUND = 255
"""Grey level that shines through transparent pixels: white, as on a page."""

Pixels = NDArray[np.uint8]

_ORIENTATION = 0x0112
_EXIF, _XMP = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"


class UnreadableImage(UserError):
    """A file that gives no picture: ``name`` and ``reason``. Survives pickling, so it crosses processes."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.reason}."


class _Refused(ValueError):
    """A reason that needs no translation."""


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written as escapes, so that it can be printed anywhere."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture of any kind into uint8 (H, W, 3), RGB, upright, contiguous.

    The kind is told by the bytes, the size by the header, before anything is decoded. Orientation (EXIF) is applied,
    16-bit samples keep their upper byte, transparency shows :data:`BACKGROUND`, animations give their first frame.

    Raises:
        UnreadableImage: for every file that is no complete picture of a known kind, or has more than ``max_pixels``
            (Pillow's own ``Image.MAX_IMAGE_PIXELS`` holds beside it for all that is not plain JPEG).
    """
    try:
        kind = _kind(data)
        return _jpeg(data, max_pixels) if kind == "JPEG" else _pillow(data, kind, max_pixels)
    except Exception as error:  # Pillow fails with OSError, ValueError, TypeError, SyntaxError, struct.error, ...
        raise UnreadableImage(name, _reason(error)) from error


def _kind(data: bytes) -> str:
    """Pillow's name of the format, by the first bytes. Few formats: EPS would run a program, text is no picture."""
    if not data:
        raise _Refused("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    raise _Refused("not an image of a known kind (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, PPM)")


def _reason(error: Exception) -> str:
    """One line without the addresses that Pillow puts into some messages: a result file must be reproducible."""
    if isinstance(error, UnidentifiedImageError):
        return "damaged: its header cannot be read"
    if isinstance(error, Image.DecompressionBombError):
        return "claims more pixels than Pillow's limit"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    text = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, _Refused):
        return text
    return (
        f"damaged: {text}" if isinstance(error, OSError) and text else f"damaged: {type(error).__name__} {text}".strip()
    )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _Refused(f"claims {width} x {height} pixels, more than the limit of {max_pixels}")


def _jpeg(data: bytes, max_pixels: int) -> Pixels:
    """simplejpeg, strict; Pillow where it refuses, and for four channels, where Adobe's inversion must be undone."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if space in ("CMYK", "YCCK"):
            return _pillow(data, "JPEG", max_pixels)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except _Refused:
        raise
    except ValueError as error:
        # Pillow fills the missing part of such a file with grey when an end marker follows, without a word.
        if "remature end" in str(error):
            raise _Refused("truncated: the JPEG data ends too early") from error
        return _pillow(data, "JPEG", max_pixels)
    if not _has_metadata(data):
        return pixels
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return _upright(pixels, _orientation(image))


def _has_metadata(data: bytes) -> bool:
    """Whether a JPEG's header holds EXIF or XMP, which may turn the picture. Most photos of data sets have none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:  # start of scan: the header is over
            return False
        if marker == 0xE1 and data.startswith((_EXIF, _XMP), at + 4):
            return True
        at += 2 if marker == 0x01 or 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _pillow(data: bytes, kind: str, max_pixels: int) -> Pixels:
    if kind not in Image.OPEN:
        Image.init()
        if kind not in Image.OPEN:
            raise _Refused(f"this Pillow is built without {kind}")
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        _check_size(*image.size, max_pixels)
        image.load()
        # After load: Pillow turns TIFF files itself while loading, and then removes the tag.
        orientation = _orientation(image)
        return _upright(_rgb(image), orientation)


def _rgb(image: Image.Image) -> Pixels:
    """uint8 (H, W, 3) of a loaded picture of any mode."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _sixteen_bit(image)
    if image.mode == "F":
        raise _Refused("floating-point samples have no agreed white")
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
    alpha = rgba[..., 3:]
    return ((rgba[..., :3] * alpha + BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)


def _sixteen_bit(image: Image.Image) -> Pixels:
    """Grey of 16 bits: the upper byte, as Pillow itself does for colour; its convert("RGB") would clip at 255."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise _Refused("samples of 32 bits have no agreed white")
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = BACKGROUND
    return np.repeat(grey[..., None], 3, axis=2)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; what is absent or damaged is 1, as viewers have it."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata of a picture that is fine; Pillow fails with anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror by EXIF orientation; contiguous."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
