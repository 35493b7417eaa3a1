"""Connected parts of a label map, and run lengths of many masks at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as connected

from cyborgs.structures import PhotoMask


@dataclass(frozen=True)
class Part:
    """A 4-connected part of one label."""

    label: int
    area: int
    """Pixels."""
    box: tuple[int, int, int, int]
    """x, y, width, height."""
    counts: list[int]
    """Run lengths in the order of columns, beginning with those outside: COCO's uncompressed RLE."""
    score: float | None
    """Mean cosine of its pixels, where that is known."""


def parts_of(mask: PhotoMask, min_area: int = 0) -> tuple[list[Part], int]:
    """Parts of at least ``min_area`` pixels, in the order of their first pixel; and how many are smaller. No void."""
    labels = mask.labels.astype(np.int32)
    if mask.void is not None:
        labels[mask.labels == mask.void] = -1
    numbers: NDArray[np.int64] = connected(labels, background=-1, connectivity=1)  # type: ignore[no-untyped-call]
    areas = np.bincount(numbers.ravel())
    areas[0] = 0  # void
    kept = np.flatnonzero(areas >= max(1, min_area))
    smaller = int(np.count_nonzero(areas)) - len(kept)
    if not len(kept):
        return [], smaller
    scores = None
    if mask.cosine is not None:
        scores = np.bincount(numbers.ravel(), weights=mask.cosine.ravel().astype(np.float64))
    boxes = ndimage.find_objects(numbers)
    runs = dict(run_lengths(numbers, kept))
    first = np.full(len(areas), -1)
    flat = numbers.ravel()
    first[flat[::-1]] = np.arange(flat.size)[::-1]
    out = []
    for number in kept.tolist():
        rows, columns = boxes[number - 1]
        box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
        area = int(areas[number])
        score = None if scores is None else float(scores[number] / area)
        out.append(Part(int(mask.labels.flat[first[number]]), area, box, runs[number], score))
    return out, smaller


def run_lengths(numbers: NDArray[np.integer], chosen: NDArray[np.integer]) -> Iterator[tuple[int, list[int]]]:
    """(number, counts) of the mask ``numbers == number`` for each chosen number, in one pass over (H, W).

    Counts run down the columns and begin with pixels outside; they add up to H * W.
    """
    flat = numbers.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    sorted_values = values[order]
    lows = np.searchsorted(sorted_values, chosen, side="left")
    highs = np.searchsorted(sorted_values, chosen, side="right")
    for number, low, high in zip(chosen.tolist(), lows, highs, strict=True):
        own = order[low:high]
        edges = np.empty(2 * len(own) + 1, np.int64)
        edges[0:-1:2], edges[1:-1:2], edges[-1] = starts[own], ends[own], flat.size
        counts = np.diff(edges, prepend=0)
        yield number, counts.tolist() if counts[-1] else counts[:-1].tolist()
