"""Colours of a training photo, as mmsegmentation's segmentation recipes change them; on uint8 with OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
BRIGHTNESS: Final = 32.0
"""Grey levels added, at most."""
FACTORS: Final = (0.5, 1.5)
"""Of contrast and of saturation."""
HUE: Final = 18
"""Steps of two degrees that the hue turns, at most."""


@dataclass(frozen=True)
class Distortion:
    """What happens to the colours; the neutral value of a field leaves them alone."""

    brightness: float = 0.0
    contrast: float = 1.0
    contrast_first: bool = True
    """Before saturation and hue, not after."""
    saturation: float = 1.0
    hue: int = 0
    """Steps of two degrees."""


def random_distortion(draw: np.random.Generator) -> Distortion:
    """Each change with probability 1/2. Always nine numbers, so that no outcome shifts the other draws."""
    u = draw.random(9).tolist()

    def between(low: float, high: float, x: float) -> float:
        return low + (high - low) * x

    return Distortion(
        brightness=between(-BRIGHTNESS, BRIGHTNESS, u[1]) if u[0] < 0.5 else 0.0,
        contrast=between(*FACTORS, u[3]) if u[2] < 0.5 else 1.0,
        contrast_first=u[4] < 0.5,
        saturation=between(*FACTORS, u[6]) if u[5] < 0.5 else 1.0,
        hue=int(u[8] * 2 * HUE) - HUE if u[7] < 0.5 else 0,
    )


def distort(image: UInt8, how: Distortion) -> UInt8:
    """Colours of uint8 (H, W, 3) RGB changed: brightness, contrast, saturation, hue, each rounded and cut to 0..255.

    brightness: x + b. contrast: c x. saturation and hue in HSV: S times a factor, at most 1, and H turned.
    """
    if how.brightness:
        image = _levels(image, 1.0, how.brightness)
    if how.contrast != 1 and how.contrast_first:
        image = _levels(image, how.contrast, 0.0)
    if how.saturation != 1 or how.hue:
        image = _turned(image, how.saturation, 2 * how.hue)
    if how.contrast != 1 and not how.contrast_first:
        image = _levels(image, how.contrast, 0.0)
    return image


def _levels(image: UInt8, gain: float, offset: float) -> UInt8:
    table = np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8)
    return cast(UInt8, cv2.LUT(image, table))


def _turned(image: UInt8, saturation: float, degrees: int) -> UInt8:
    # In float32: OpenCV's uint8 hue has 180 steps, which moves colours by up to 4 levels there and back.
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hue, strength, value = cv2.split(hsv)
    if degrees:
        hue = cast(NDArray[np.float32], np.mod(hue + np.float32(degrees), np.float32(360)))
    strength = cast(NDArray[np.float32], np.minimum(strength * np.float32(saturation), np.float32(1)))
    rgb = cv2.cvtColor(cv2.merge([hue, strength, value]), cv2.COLOR_HSV2RGB)
    return cast(UInt8, np.clip(np.rint(rgb * 255), 0, 255).astype(np.uint8))
