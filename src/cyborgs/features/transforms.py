"""From a photo to the square that a frozen network sees. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.seeds import numpy_generator
from cyborgs.views.config import Crop
from cyborgs.views.geometry import crop_resize, random_geometry

UInt8 = NDArray[np.uint8]
_DRAWN: Final = 50
"""Stream of ``numpy_generator(seed, "evaluation", ...)``."""

LONG: Final = 16
"""Squares' pixels that an enlarged photo may have to be made whole."""


class Transform(Protocol):
    """A photo's square; its ``repr`` says all that it depends on, for it is part of the features' key."""

    @property
    def size(self) -> int:
        """Side of the square, in pixels."""

    def __call__(self, image: UInt8, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3) -> uint8 (size, size, 3)."""
        ...


def resized(image: UInt8, height: int, width: int) -> UInt8:
    """The mean over each output pixel's extent where the image shrinks along both axes, else bilinear."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast(UInt8, cv2.resize(image, (width, height), interpolation=how))


def _at_short_side(image: UInt8, short: float) -> tuple[int, int]:
    height, width = image.shape[:2]
    factor = short / min(height, width)
    least = int(short)
    return max(least, round(height * factor)), max(least, round(width * factor))


def to_short_side(image: UInt8, short: float) -> UInt8:
    """The image scaled such that its short side has ``short`` pixels, rounded."""
    return resized(image, *_at_short_side(image, short))


def centre(image: UInt8, height: int, width: int) -> UInt8:
    """The middle (height, width) of an image at least as large, (H, W) or (H, W, 3)."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def middle(image: UInt8, short: float, size: int) -> UInt8:
    """The middle (size, size) of ``to_short_side(image, short)``; uint8 (H, W, 3), ``size`` at most ``short``.

    Of a photo that is enlarged and many times as long as it is wide the middle alone is made: to one grey level the same.
    """
    height, width = _at_short_side(image, short)
    if height <= image.shape[0] or width <= image.shape[1] or height * width <= LONG * size * size:
        return np.ascontiguousarray(centre(resized(image, height, width), size, size))
    rows, columns = (
        _between(cells, pixels, size) for cells, pixels in zip(image.shape[:2], (height, width), strict=True)
    )
    top = _mixed(image, rows[0], columns)
    bottom = _mixed(image, rows[1], columns)
    mixed = top + (bottom - top) * rows[2][:, None, None]
    return cast(UInt8, np.rint(mixed).astype(np.uint8))


_Axis = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


def _between(cells: int, pixels: int, size: int) -> _Axis:
    """Of the middle ``size`` of ``pixels``, (size,) each: the cells before and after, and how far on the way."""
    numbers = np.arange(size) + (pixels - size) // 2
    places = ((numbers + 0.5) * cells / pixels - 0.5).clip(0, cells - 1)  # half-pixel centres
    low = places.astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), places - low


def _mixed(image: UInt8, rows: NDArray[np.int64], columns: _Axis) -> NDArray[np.float64]:
    """These rows, interpolated at these columns: (rows, columns, 3)."""
    left, right = (image[np.ix_(rows, side)].astype(np.float64) for side in columns[:2])
    found: NDArray[np.float64] = left + (right - left) * columns[2][None, :, None]
    return found


@dataclass(frozen=True)
class Square:
    """Short side to ``short`` pixels (0: 8/7 of ``size``), the middle cut out."""

    size: int
    short: float = 0.0

    def __call__(self, image: UInt8, i: int = 0) -> UInt8:
        """The middle of a photo."""
        return middle(image, self.short or self.size * 8 / 7, self.size)


@dataclass(frozen=True)
class Squash:
    """Short side to ``short`` pixels, then both sides to ``size``, whatever the shape (OpenSelfSup's VOC07)."""

    size: int
    short: float

    def __call__(self, image: UInt8, i: int = 0) -> UInt8:
        """The whole photo, out of proportion."""
        return resized(to_short_side(image, self.short), self.size, self.size)


def drawn_crop(image: UInt8, size: int, draw: np.random.Generator, area: tuple[float, float] = (0.08, 1.0)) -> UInt8:
    """A crop of a random share of the area, mirrored half of the time: torchvision's RandomResizedCrop and flip.

    uint8 (H, W, 3) -> uint8 (size, size, 3), without aliasing.
    """
    geometry = random_geometry(draw, image.shape[0], image.shape[1], Crop(area=area))
    return crop_resize(image, geometry, size, "area")


@dataclass(frozen=True)
class Drawn:
    """One crop of at least a fifth of each photo, mirrored half of the time, drawn from (seed, photo)."""

    size: int
    seed: int

    def __call__(self, image: UInt8, i: int) -> UInt8:
        """Photo i's crop."""
        return drawn_crop(image, self.size, numpy_generator(self.seed, "evaluation", _DRAWN, i), (0.2, 1.0))
