"""Figures of a generation of masks: is anything left of them, and do they hold from one generation to the next?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from cyborgs.ops import contingency
from cyborgs.structures import MAX_LABELS

SAMPLE: Final = 512
"""Images that are looked at, in whole groups."""


def label_counts(labels: np.ndarray, void: int | None = None) -> np.ndarray:
    """Cells of each label: int64 (256,) of a uint8 map (h, w); those of ``void`` are not counted."""
    counts = np.bincount(labels.ravel(), minlength=MAX_LABELS)
    if void is not None:
        counts[void] = 0
    return counts


def evenness(counts: np.ndarray) -> float:
    """Entropy over its maximum, log of the labels present: 1 where all are equally large, 0 for a single label."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum() / np.log(len(shares))) if len(shares) > 1 else 0.0


def adjusted_rand(first: np.ndarray, second: np.ndarray) -> float:
    """``ops.contingency.adjusted_rand`` of two maps of the same cells, uint8 of one shape."""
    return contingency.adjusted_rand(contingency.contingency(first, second))


def mask_figures(
    groups: Sequence[np.ndarray],
    read: Callable[[int], np.ndarray],
    *,
    void: int | None = None,
    before: Callable[[int], np.ndarray] | None = None,
    clusters: Callable[[int], int] | None = None,
) -> dict[str, float]:
    """Means over the first ``SAMPLE`` images, taken by whole groups.

    Args:
        groups: indices of the images that were labelled together.
        read: the map of an image, uint8 (h, w).
        void: a label that is no region.
        before: the map of the generation before; None where there is none.
        clusters: K of a group by its number, where the labels of a group are one clustering's.

    Returns:
        ``masks/regions``: labels an image; ``masks/one_label_share``: of images that have one label at most;
        ``masks/entropy``: ``evenness`` of an image; with ``clusters`` ``masks/used_clusters``: share of a group's K that
        occurs; with ``before`` ``masks/stability``: ``adjusted_rand`` of both maps, over images whose maps have one size.
    """
    regions: list[int] = []
    even: list[float] = []
    stable: list[float] = []
    used: list[float] = []
    for number, group in enumerate(groups):
        if regions and len(regions) + len(group) > SAMPLE:
            break
        together = np.zeros(MAX_LABELS, np.int64)
        for index in group.tolist():
            labels = read(index)
            counts = label_counts(labels, void)
            together += counts
            regions.append(int((counts > 0).sum()))
            even.append(evenness(counts))
            if before is not None and (old := before(index)).shape == labels.shape:
                stable.append(adjusted_rand(old, labels))
        if clusters is not None:
            used.append(float((together > 0).sum() / min(clusters(number), together.sum())))
    figures = {
        "masks/regions": float(np.mean(regions)),
        "masks/one_label_share": float(np.mean(np.array(regions) <= 1)),
        "masks/entropy": float(np.mean(even)),
    }
    if used:
        figures["masks/used_clusters"] = float(np.mean(used))
    if stable:
        figures["masks/stability"] = float(np.mean(stable))
    return figures
