"""COCO's masks: polygons, run lengths in lists, run lengths in text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Malformed(ValueError):
    """What is wrong with a mask, without a full stop."""


def counts_of(text: str) -> list[int]:
    """Run lengths from COCO's text: groups of 5 bits, lowest first, bit 6 says that more follow; from the third
    number on each is a difference to the one two before.

    Raises:
        Malformed: it ends inside a number, or holds what is no digit.
    """
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise Malformed(f"run lengths hold the character {character!r}")
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > 60:
            raise Malformed("a run length is longer than any picture")
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise Malformed("run lengths end in the middle of a number")
    return counts


def runs_to_mask(counts: Sequence[int], size: tuple[int, int]) -> Mask:
    """bool (H, W): runs of outside, inside, outside, ... down the columns.

    Raises:
        Malformed: a run is no whole number from 0, or they do not fill the picture.
    """
    if not all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in counts):
        raise Malformed("a run length is no whole number of at least 0")
    height, width = size
    if sum(counts) != height * width:
        raise Malformed(f"run lengths add up to {sum(counts)} pixels, the picture has {width} x {height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def mask_of(segmentation: Any, size: tuple[int, int]) -> Mask:
    """The pixels of an annotation: bool (H, W).

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]`` in pixels, or ``{"size": [H, W], "counts": list or text}``.
        size: (H, W) of the picture.

    Raises:
        Malformed: none of these, or not of this picture.
    """
    if isinstance(segmentation, dict):
        if segmentation.get("size") not in (list(size), size):
            raise Malformed(f"its mask is for {segmentation.get('size')} (height, width), the picture has {list(size)}")
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            return runs_to_mask(counts_of(counts), size)
        if isinstance(counts, list):
            return runs_to_mask(counts, size)
        raise Malformed("its mask has no counts")
    if not isinstance(segmentation, list):
        raise Malformed("has no segmentation")
    if not segmentation:
        return np.zeros(size, bool)
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise Malformed("a polygon needs at least three points, as an even count of numbers")
        if not all(isinstance(v, int | float) and abs(v) < 1e6 for v in polygon):
            raise Malformed("a polygon holds what is no number, or one far beyond any picture")
    from pycocotools import mask as coco_masks

    height, width = size
    decoded = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(segmentation, height, width)))
    return cast(Mask, decoded.astype(bool))
