"""How many pixels the regions of two maps share: what all measures of two segmentations are made of. Numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_DENSE: Final = 1 << 20
"""Cells of a full table that are counted rather than sorted."""


@dataclass(frozen=True)
class Contingency:
    """The pairs of regions that share a pixel, and how many. Exact, and as long as there are pairs that occur.

    Two maps of noise have as many regions as pixels: the full table would have their square.
    """

    shared: Ints
    """int64 (P,), above 0: n_ij, in rising order of (i, j)."""
    i: Ints
    """int64 (P,): region of the first map, 0..I-1."""
    j: Ints
    """int64 (P,): region of the second map, 0..J-1."""
    first: Ints
    """int64 (I,): pixels of each region of the first map, all above 0."""
    second: Ints
    """int64 (J,): those of the second map."""
    first_labels: Ints
    """int64 (I,): the label of each region, in rising order."""
    second_labels: Ints
    """int64 (J,)."""

    @property
    def pixels(self) -> int:
        """All that were counted."""
        return int(self.shared.sum())


def contingency(
    first: NDArray[np.integer], second: NDArray[np.integer], kept: NDArray[np.bool_] | None = None
) -> Contingency:
    """Of two maps of one shape, any integers; only pixels where ``kept`` is True count.

    ValueError where the shapes differ or a map holds no whole numbers.
    """
    for labels in (first, second):
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    if first.shape != second.shape:
        raise ValueError(f"the maps differ in shape: {first.shape} and {second.shape}")
    a, b = (first.ravel(), second.ravel()) if kept is None else (first[kept], second[kept])
    (i, first_labels), (j, second_labels) = _numbered(a), _numbered(b)
    columns = len(second_labels)
    keys = i * columns + j
    cells = len(first_labels) * columns
    if cells <= max(_DENSE, 2 * keys.size):
        table = np.bincount(keys, minlength=cells)
        pairs = np.flatnonzero(table)
        shared = table[pairs]
    else:
        pairs, shared = np.unique(keys, return_counts=True)
    rows, cols = np.divmod(pairs, max(1, columns))
    sums = (
        np.bincount(i, minlength=len(first_labels)).astype(np.int64),
        np.bincount(j, minlength=columns).astype(np.int64),
    )
    return Contingency(shared.astype(np.int64), rows, cols, *sums, first_labels, second_labels)


def _numbered(labels: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Each pixel's place among the labels that occur, and those labels in rising order."""
    if not labels.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    low = int(labels.min())
    span = int(labels.max()) - low + 1
    if span > max(_DENSE, 2 * labels.size):
        found, places = np.unique(labels, return_inverse=True)
        return places.astype(np.int64), found.astype(np.int64)
    moved = labels.astype(np.int64) - low
    present = np.bincount(moved, minlength=span) > 0
    return (np.cumsum(present) - 1)[moved], np.flatnonzero(present) + low


def pair_counts(table: Contingency) -> tuple[int, int, int, int]:
    """Pairs of pixels that are together in both maps, in the first, in the second, and all pairs: exact.

    n (n - 1) / 2 is counted in int64, which holds it up to three thousand million pixels; products of the sums do not, so they are Python's.
    """

    def pairs(counts: Ints) -> int:
        return int((counts * (counts - 1) // 2).sum())

    pixels = table.pixels
    return pairs(table.shared), pairs(table.first), pairs(table.second), pixels * (pixels - 1) // 2


def adjusted_rand(table: Contingency) -> float:
    """Adjusted Rand index (Hubert and Arabie, 1985): 1 where the maps are the same but for their labels' names.

    About 0 where they have nothing to do with each other, and below where they agree less than chance. 1 where both
    are one region, or both all single pixels; NaN without a pixel.
    """
    if not len(table.shared):
        return float("nan")
    both, a, b, every = pair_counts(table)
    # Times 2 * every, so that all is whole: quotient of (both - ab/every) and ((a + b)/2 - ab/every).
    expected = 2 * a * b
    most = (a + b) * every
    return 1.0 if most == expected else (2 * both * every - expected) / (most - expected)
