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


def to_short_side(image: UInt8, short: float) -> UInt8:
    """The image scaled such that its short side has ``short`` pixels, rounded."""
    height, width = image.shape[:2]
    factor = short / min(height, width)
    least = int(short)
    return resized(image, max(least, round(height * factor)), max(least, round(width * factor)))


def centre(image: UInt8, height: int, width: int) -> UInt8:
    """The middle (height, width) of an image at least as large, (H, W) or (H, W, 3)."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


@dataclass(frozen=True)
class Square:
    """Short side to ``short`` pixels (0: 8/7 of ``size``), the middle cut out."""

    size: int
    short: float = 0.0

    def __call__(self, image: UInt8, i: int = 0) -> UInt8:
        """The middle of a photo."""
        return np.ascontiguousarray(centre(to_short_side(image, self.short or self.size * 8 / 7), self.size, self.size))


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
