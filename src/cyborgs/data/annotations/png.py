"""Label pictures: whole numbers per pixel, or identifiers in three bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import UserError, printable

MAX_PIXELS = 178_956_970
"""As for photos: more is refused by the header."""

_LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF")
_NUMBERS = ("L", "P", "1", "I", "I;16", "I;16B")


def _pixels(path: Path, modes: tuple[str, ...], need: str) -> NDArray[np.generic]:
    shown = printable(str(path))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown}: cannot be read ({error.strerror}).") from error
    try:
        with Image.open(io.BytesIO(data)) as picture:
            mode, size, form = picture.mode, picture.size, picture.format
            if size[0] * size[1] > MAX_PIXELS:
                raise ValueError(f"{size[0]} x {size[1]} pixels are more than {MAX_PIXELS}")
            pixels = np.array(picture) if mode in modes else None
    except Exception as error:  # Pillow fails with many kinds on damaged files
        raise UserError(f"{shown}: no readable picture ({error}). A label map is {need}.") from error
    if form in _LOSSY:
        raise UserError(f"{shown}: is a {form}, which changes labels as it compresses. A label map is {need}.")
    if pixels is None:
        raise UserError(
            f"{shown}: holds {mode} pixels, not labels. A label map is {need}: convert colours to numbers first."
        )
    return pixels


def read_numbers(path: Path) -> Labels:
    """The number of each pixel, int32 (H, W), of a grey (8 or 16 bit) or palette PNG (the index, not the colour).

    Raises:
        UserError: cannot be read, or holds colours; names the file.
    """
    return _pixels(path, _NUMBERS, "a grey (8 or 16 bit) or palette PNG").astype(np.int32)


def read_classes(path: Path, void: int | None) -> Labels:
    """``read_numbers``, -1 where it is ``void``; None: all count."""
    numbers = read_numbers(path)
    if void is not None:
        numbers[numbers == void] = VOID
    return numbers


def read_identifiers(path: Path) -> Labels:
    """R + 256 G + 65536 B of each pixel, int32 (H, W), of an RGB PNG.

    Raises:
        UserError: cannot be read, or is no RGB picture; names the file.
    """
    rgb = _pixels(path, ("RGB", "RGBA"), "an RGB PNG of identifiers").astype(np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def numbered(values: Labels, void: NDArray[np.bool_] | None = None) -> Labels:
    """Values as 0, 1, ... in their order, -1 where ``void``."""
    kept = np.ones(values.shape, bool) if void is None else ~void
    out = np.full(values.shape, VOID, np.int32)
    out[kept] = np.unique(values[kept], return_inverse=True)[1].ravel()
    return out


def to_classes(numbers: Labels, table: NDArray[np.int32], path: Path) -> Labels:
    """``table[number]`` of each pixel; UserError where a number lies beyond the table."""
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(table):
        raise UserError(
            f"{printable(str(path))}: holds {numbers.max() if numbers.max() >= len(table) else numbers.min()}, "
            f"this layout knows 0 to {len(table) - 1}."
        )
    return table[numbers]
