"""Where a view lies in its image, and the pixels that it shows. No torch here."""

from __future__ import annotations

import math
from typing import Literal, cast

import cv2
import numpy as np

from cyborgs.data.decode import Pixels
from cyborgs.structures import ViewGeometry
from cyborgs.views.config import Crop

# Threads would only compete with the loader's processes, and change nothing but the time.
cv2.setNumThreads(0)

_TRIES = 10


def random_geometry(rng: np.random.Generator, image_h: int, image_w: int, crop: Crop) -> ViewGeometry:
    """A random crop box and mirror, sampled as torchvision's RandomResizedCrop.

    Area uniform in ``crop.area``, width over height log-uniform in ``crop.ratio``; after ten boxes that do not fit,
    the largest central one with an allowed ratio. Always the same number of draws, 23, so that later draws of the
    sample do not depend on the image's size. The box is in whole pixels.
    """
    draws = rng.random(2 * _TRIES + 3).tolist()
    low, high = crop.area
    log_low, log_high = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    u_y, u_x, u_flip = draws[2 * _TRIES :]
    flip = u_flip < crop.flip
    for t in range(_TRIES):
        area = image_h * image_w * (low + (high - low) * draws[2 * t])
        ratio = math.exp(log_low + (log_high - log_low) * draws[2 * t + 1])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= image_w and 0 < h <= image_h:
            y0, x0 = int(u_y * (image_h - h + 1)), int(u_x * (image_w - w + 1))
            return ViewGeometry(y0, x0, h, w, flip, image_h, image_w)
    w, h = image_w, image_h
    if image_w / image_h < crop.ratio[0]:
        h = min(image_h, max(1, round(image_w / crop.ratio[0])))
    elif image_w / image_h > crop.ratio[1]:
        w = min(image_w, max(1, round(image_h * crop.ratio[1])))
    return ViewGeometry((image_h - h) // 2, (image_w - w) // 2, h, w, flip, image_h, image_w)


def crop_resize(
    image: Pixels, geometry: ViewGeometry, size: int, interpolation: Literal["linear", "area"] = "linear"
) -> Pixels:
    """The view's pixels before colours: uint8 (size, size, 3) of a uint8 (H, W, 3) image.

    ``linear``: bilinear without antialiasing, torchvision's ``resized_crop(antialias=False)`` to one grey level.
    ``area``: along an axis that shrinks the mean over each output pixel's exact extent, along one that grows bilinear.
    """
    g = geometry
    pixels = image[g.y0 : g.y0 + g.h, g.x0 : g.x0 + g.w]
    if interpolation == "area" and (g.h > size or g.w > size):
        # OpenCV's area filter turns into another one for both axes when one of them grows: shrink alone, first.
        pixels = cast(Pixels, cv2.resize(pixels, (min(g.w, size), min(g.h, size)), interpolation=cv2.INTER_AREA))
    if pixels.shape[:2] != (size, size):
        pixels = cast(Pixels, cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR))
    elif pixels.base is not None:
        pixels = pixels.copy()
    return cast(Pixels, cv2.flip(pixels, 1)) if g.flip else pixels
