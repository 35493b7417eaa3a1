"""Label maps of one photo side by side: the same thing in the same colour, told apart by readers who see few colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.data.palette import boundaries, palette

UInt8 = NDArray[np.uint8]
Numbers = NDArray[np.int32]

SAFE: Final = ("orange", "sky blue", "green", "yellow", "blue", "vermilion", "pink", "grey")
"""Names of the palette's first colours, which colour-blind readers tell apart."""
NONE: Final = -1
"""No region: void, or no prediction."""
_DEPTH: Final = 7.0
"""Pixels from its border to where a region's number stands, at least: the figures must lie inside."""


def by_size(labels: NDArray[np.integer]) -> dict[int, int]:
    """A number for each label of at least 0: the largest region is 0. Ties: the lower label first."""
    found, pixels = np.unique(labels[labels >= 0], return_counts=True)
    return {int(found[place]): number for number, place in enumerate(np.argsort(-pixels, kind="stable"))}


def matched(labels: NDArray[np.integer], reference: Numbers) -> dict[int, int]:
    """A number for each label: that of the reference's region it is matched to, or one that the reference lacks.

    One to one, such that most pixels agree (Hungarian matching on overlap); what is left over is numbered by size.
    Maps of one shape; pixels below 0 count in neither.
    """
    from scipy.optimize import linear_sum_assignment

    from cyborgs.ops.contingency import contingency

    table = contingency(labels, reference, (labels >= 0) & (reference >= 0))
    counts = np.zeros((len(table.first), len(table.second)), np.int64)
    counts[table.i, table.j] = table.shared
    rows, columns = linear_sum_assignment(counts, maximize=True)
    numbers = {
        int(table.first_labels[i]): int(table.second_labels[j])
        for i, j in zip(rows, columns, strict=True)
        if counts[i, j]
    }
    free = max(0, int(reference.max(initial=NONE)) + 1)
    for label in by_size(labels):
        if label not in numbers:
            numbers[label] = free
            free += 1
    return numbers


def renumbered(labels: NDArray[np.integer], numbers: Mapping[int, int]) -> Numbers:
    """The map with other numbers, int32; labels that have none, and those below 0, become -1."""
    top = int(labels.max(initial=0))
    table = np.full(top + 2, NONE, np.int32)
    for label, number in numbers.items():
        if 0 <= label <= top:
            table[label] = number
    # The last place stands for all that is below 0.
    return table[np.where(labels < 0, top + 1, labels)]


def colour_name(number: int) -> str:
    """What a caption calls it: a colour where it is one that everybody tells apart, else its number."""
    return SAFE[number] if 0 <= number < len(SAFE) else f"number {number + 1}"


def paint(
    numbers: Numbers, image: UInt8 | None = None, *, alpha: float = 0.7, written: bool = False, borders: bool = True
) -> UInt8:
    """The map in colours, over its photo (H, W, 3) where that is given; uint8 (H, W, 3).

    Borders are white; ``written``: each region's number, from 1, stands where its largest part is widest, for more
    colours than can be told apart. No region: the photo in grey, or grey.
    """
    table = palette()
    flat = table[np.maximum(numbers, 0) % len(table)].astype(np.uint16)
    none = numbers < 0
    out: UInt8
    if image is None:
        out = flat.astype(np.uint8)
        out[none] = 90
    else:
        weight = round(alpha * 256)
        mixed = (image.astype(np.uint16) * (256 - weight) + flat * weight) >> 8
        out = mixed.astype(np.uint8)
        out[none] = (image[none].mean(1, keepdims=True) * 0.6).astype(np.uint8)
    if borders:
        out[boundaries(numbers)] = 255
    if written:
        for number in np.unique(numbers[~none]):
            _write(out, numbers == number, str(number + 1))
    return out


def _write(out: UInt8, region: NDArray[np.bool_], text: str) -> None:
    # One pixel of frame, so that the edge of the picture is a border too.
    depth = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    _, deepest, _, (x, y) = cv2.minMaxLoc(depth)
    if deepest < _DEPTH:
        return
    scale = min(1.0, max(0.35, deepest / 28))
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    place = (max(0, x - width // 2), min(out.shape[0] - 1, y + height // 2))
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA)
