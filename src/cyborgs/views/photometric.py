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

_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114
"""Weights of the colours in a grey value: torchvision's."""
_WHITE = _RED + _GREEN + _BLUE

_ORDERS = tuple(itertools.permutations(("brightness", "contrast", "saturation", "hue")))
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

    Each step is torchvision's of the same name within 1 level: its uint8 results are cut off, ours are rounded. Steps
    that cannot leave 0..255 are not rounded by themselves but become one with what follows.
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
    """Pixels with a map of colours that is still to be applied.

    Brightness, contrast and saturation, in any order, map a colour x to ``gain * x + grey_gain * luma(x) + offset``:
    three numbers, not a matrix.
    """

    def __init__(self, image: Pixels) -> None:
        self._image = image
        self._gain, self._grey_gain, self._offset = 1.0, 0.0, 0.0
        self._pending = False

    def brightness(self, factor: float) -> None:
        self._blend(factor, 0.0)

    def contrast(self, factor: float) -> None:
        red, green, blue, _ = cv2.mean(self._image)
        mean = self._luma(_RED * red + _GREEN * green + _BLUE * blue)
        self._blend(factor, (1 - factor) * math.floor(mean))  # torchvision cuts the grey values to whole numbers

    def saturation(self, factor: float) -> None:
        grey_gain, grey_offset = self._gain + self._grey_gain * _WHITE, self._offset * _WHITE
        self._blend(factor, (1 - factor) * grey_offset, (1 - factor) * grey_gain)

    def turn(self, hue: float) -> None:
        self._image = turn_hue(self.pixels(), hue)

    def pixels(self) -> Pixels:
        """Apply what is pending: uint8 (S, S, 3)."""
        if self._pending:
            a, b, c = self._gain, self._grey_gain, self._offset
            r, g, u = b * _RED, b * _GREEN, b * _BLUE
            matrix = np.array(((a + r, g, u, c), (r, a + g, u, c), (r, g, a + u, c)))
            self._image = cast(Pixels, cv2.transform(self._image, matrix))
            self._gain, self._grey_gain, self._offset = 1.0, 0.0, 0.0
            self._pending = False
        return self._image

    def grey(self) -> Pixels:
        """Apply what is pending and reduce to grey: uint8 (S, S)."""
        gain = self._gain + self._grey_gain * _WHITE
        row = np.array(((gain * _RED, gain * _GREEN, gain * _BLUE, self._offset * _WHITE),))
        return cast(Pixels, cv2.transform(self._image, row))

    def _luma(self, value: float) -> float:
        """Grey value after what is pending, of a colour whose grey value is ``value``."""
        return (self._gain + self._grey_gain * _WHITE) * value + self._offset * _WHITE

    def _blend(self, factor: float, offset: float, grey_gain: float = 0.0) -> None:
        self._gain *= factor
        self._grey_gain = self._grey_gain * factor + grey_gain
        self._offset = self._offset * factor + offset
        self._pending = True
        if factor > 1:  # below 1 it blends pictures in range; above 1 it may leave 0..255 and must be cut off at once
            self.pixels()


def turn_hue(image: Pixels, turn: float) -> Pixels:
    """Turn the hue of uint8 (S, S, 3) by a share of the circle; largest and smallest channel of a pixel keep its HSV.

    Without HSV, whose 8 bits are too coarse and whose way there and back costs more. With M, mid, m a pixel's sorted
    channels and C = M - m, a channel x follows the hue as clip(2x - mid, m, M), and a turn of at most a sixth moves
    2x - mid by t = 6 |turn| C: for positive turns down where the next channel (red, green, blue, red) is above the
    previous one, else up. Saturating arithmetic does the rest: 2x - mid is above M for the largest channel alone and
    below m for the smallest alone, which takes that much off t.
    """
    if abs(turn) > 1 / 6:
        return turn_hue(turn_hue(image, turn / 2), turn / 2)
    backwards = turn < 0
    red, green, blue = cv2.split(image)
    if backwards:  # the mirrored circle
        green, blue = blue, green
    low, high = cv2.min(red, green), cv2.max(red, green)
    smallest, largest = cv2.min(low, blue), cv2.max(high, blue)
    middle = cv2.max(low, cv2.min(high, blue))
    t = cv2.convertScaleAbs(cv2.subtract(largest, smallest), alpha=6 * abs(turn))
    turned = []
    for x, following, previous in ((red, green, blue), (green, blue, red), (blue, red, green)):
        falls = cv2.compare(following, previous, cv2.CMP_GT)  # 0 or 255
        down = cv2.subtract(x, middle)
        cv2.subtract(t, down, dst=down)
        cv2.bitwise_and(down, falls, dst=down)
        up = cv2.subtract(middle, x)
        cv2.subtract(t, up, dst=up)
        cv2.subtract(up, falls, dst=up)
        cv2.add(up, x, dst=up)
        cv2.min(up, largest, dst=up)
        cv2.subtract(up, down, dst=up)
        turned.append(cv2.max(up, smallest, dst=up))
    if backwards:
        turned[1], turned[2] = turned[2], turned[1]
    return cast(Pixels, cv2.merge(turned))


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
