"""Colours of a view: jitter, greyscale, blur, solarise, on uint8 with OpenCV. No torch here."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.data.decode import Pixels
from cyborgs.views.config import Crop

Matrix = NDArray[np.float64]

LUMA = np.array([0.2989, 0.587, 0.114])
"""Weights of red, green, blue in a grey value: torchvision's."""

_ORDERS = tuple(itertools.permutations(("brightness", "contrast", "saturation", "hue")))
_STEPS = np.arange(256)
_SOLARISE = np.array([v if v < 128 else 255 - v for v in range(256)], dtype=np.uint8)


@dataclass(frozen=True)
class Photometry:
    """What happens to the colours of one view. The neutral value of each field leaves the pixels alone."""

    order: tuple[str, ...] = _ORDERS[0]
    """Order of the four jitters."""
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    """Turn, as a share of the circle."""
    grey: bool = False
    sigma: float = 0.0
    """Standard deviation of the blur in pixels; 0: none."""
    solarise: bool = False


def random_photometry(rng: np.random.Generator, crop: Crop) -> Photometry:
    """Draw the colours of a view. Always ten numbers, so that no setting or outcome shifts the other draws."""
    u = rng.random(10).tolist()
    jitter = u[0] < crop.jitter

    def between(low: float, high: float, x: float) -> float:
        return low + (high - low) * x

    def factor(strength: float, x: float) -> float:
        return between(max(0.0, 1 - strength), 1 + strength, x) if jitter else 1.0

    return Photometry(
        order=_ORDERS[int(u[1] * len(_ORDERS))],
        brightness=factor(crop.brightness, u[2]),
        contrast=factor(crop.contrast, u[3]),
        saturation=factor(crop.saturation, u[4]),
        hue=between(-crop.hue, crop.hue, u[5]) if jitter else 0.0,
        grey=u[6] < crop.grey,
        sigma=between(*crop.sigma, u[8]) if u[7] < crop.blur else 0.0,
        solarise=u[9] < crop.solarise,
    )


def apply_photometry(image: Pixels, how: Photometry) -> Pixels:
    """Change the colours of a uint8 (S, S, 3) view: jitters in their order, grey, blur, solarise; a new array.

    Each step is torchvision's of the same name (its uint8 results are cut off, ours are rounded): brightness, contrast,
    saturation, grey and blur within 1 level, hue within 6 (it has 255 steps here). Steps that cannot leave 0..255 are
    not rounded by themselves but become one matrix with what follows.
    """
    colours = _Colours(image)
    for step in how.order:
        if step == "hue":
            if how.hue:
                colours.turn(how.hue)
        elif (value := getattr(how, step)) != 1:
            getattr(colours, step)(value)
    result = colours.grey() if how.grey else colours.pixels()
    if how.sigma:
        result = blur(result, how.sigma)
    if how.solarise:
        result = cast(Pixels, cv2.LUT(result, _SOLARISE))
    if how.grey:
        result = cast(Pixels, cv2.cvtColor(result, cv2.COLOR_GRAY2RGB))
    return result.copy() if result is image else result


class _Colours:
    """Pixels with an affine map of colours that is still to be applied."""

    def __init__(self, image: Pixels) -> None:
        self._image = image
        self._map: Matrix | None = None

    def brightness(self, factor: float) -> None:
        self._then(np.diag((factor, factor, factor)), np.zeros(3), factor)

    def contrast(self, factor: float) -> None:
        mean = np.array(cv2.mean(self._image)[:3])
        if self._map is not None:
            mean = self._map[:, :3] @ mean + self._map[:, 3]
        grey = math.floor(LUMA @ mean)  # torchvision averages grey values that are cut to whole numbers
        self._then(np.diag((factor, factor, factor)), np.full(3, (1 - factor) * grey), factor)

    def saturation(self, factor: float) -> None:
        self._then(factor * np.eye(3) + (1 - factor) * LUMA, np.zeros(3), factor)

    def turn(self, hue: float) -> None:
        hsv = cast(Pixels, cv2.cvtColor(self.pixels(), cv2.COLOR_RGB2HSV_FULL))
        # OpenCV writes 256 steps of hue to the circle but reads 255.
        turned = np.rint((_STEPS + 256 * hue) % 256 * (255 / 256)).astype(np.uint8)
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), turned), hsv, 0)
        self._image = cast(Pixels, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))

    def pixels(self) -> Pixels:
        """Apply what is pending: uint8 (S, S, 3)."""
        if self._map is not None:
            self._image = cast(Pixels, cv2.transform(self._image, self._map))
            self._map = None
        return self._image

    def grey(self) -> Pixels:
        """Apply what is pending and reduce to grey: uint8 (S, S)."""
        row = LUMA[None] @ self._map if self._map is not None else np.append(LUMA, 0.0)[None]
        return cast(Pixels, cv2.transform(self._image, row))

    def _then(self, matrix: Matrix, offset: Matrix, factor: float) -> None:
        if self._map is not None:
            offset = matrix @ self._map[:, 3] + offset
            matrix = matrix @ self._map[:, :3]
        self._map = np.column_stack((matrix, offset))
        if factor > 1:  # below 1 it blends pictures in range; above 1 it may leave 0..255 and must be cut off at once
            self.pixels()


def blur(image: Pixels, sigma: float) -> Pixels:
    """Gaussian blur of uint8 (S, S) or (S, S, 3), borders reflected, within 1 level of torchvision's full kernel."""
    kernel = gaussian_kernel(sigma, min(image.shape[:2]))
    if len(kernel) == 1:
        return image
    return cast(Pixels, cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101))


def kernel_size(side: int) -> int:
    """Odd kernel of about a tenth of the crop: 23 at 224."""
    return max(3, side // 10 + 1 - side // 10 % 2)


@lru_cache(maxsize=4096)
def gaussian_kernel(sigma: float, side: int) -> NDArray[np.float32]:
    """Weights up to :func:`kernel_size`, without the outer ones below 1/512: together they move no grey value by 1."""
    radius = kernel_size(side) // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    weights = weights[weights >= 1 / 512]
    kept: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return kept
