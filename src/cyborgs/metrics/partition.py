"""Measures of two partitions of the same pixels, S (predicted) and G (truth), from one contingency table.

All take a :class:`~cyborgs.ops.contingency.Contingency` with S first. Names of labels never matter. Counts are exact
integers, their quotients float64. NaN where no pixel was counted; where S = G each has its optimum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cyborgs.ops.contingency import Contingency, adjusted_rand, pair_counts

__all__ = [
    "achievable_accuracy",
    "adjusted_rand",
    "conditional_entropies",
    "covering",
    "mutual_information",
    "rand_index",
]


def rand_index(table: Contingency) -> float:
    """Share of pixel pairs on which both agree: together in both or apart in both (Rand, 1971). 1 for one pixel.

    Averaged over annotators it is BSDS's PRI.
    """
    if not len(table.shared):
        return float("nan")
    both, a, b, every = pair_counts(table)
    return (every - a - b + 2 * both) / every if every else 1.0


def _entropy(counts: NDArray[np.int64], pixels: int) -> float:
    """-sum p log2 p, in bits."""
    shares = counts / pixels
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def conditional_entropies(table: Contingency) -> tuple[float, float]:
    """H(S|G) and H(G|S), in bits: how much S cuts the truth's regions, and how much it joins them."""
    pixels = table.pixels
    if not pixels:
        return float("nan"), float("nan")
    shares = table.shared / pixels
    split = -(shares * np.log2(table.shared / table.second[table.j])).sum()
    joined = -(shares * np.log2(table.shared / table.first[table.i])).sum()
    return max(0.0, float(split)), max(0.0, float(joined))


def mutual_information(table: Contingency) -> float:
    """Mutual information over the arithmetic mean of both entropies (NMI), 0 to 1.

    1 where both are one region, 0 where only one of them is: it tells nothing of the other.
    """
    pixels = table.pixels
    if not pixels:
        return float("nan")
    if len(table.first) == len(table.second) == 1:
        return 1.0
    if min(len(table.first), len(table.second)) == 1:
        return 0.0
    ratios = table.shared / table.first[table.i] * (pixels / table.second[table.j])
    information = float((table.shared / pixels * np.log2(ratios)).sum())
    mean = (_entropy(table.first, pixels) + _entropy(table.second, pixels)) / 2
    return min(1.0, max(0.0, information / mean))


def covering(table: Contingency) -> float:
    """C(G <- S) = 1/N sum_j |G_j| max_i IoU(G_j, S_i) (Arbelaez et al., 2011)."""
    pixels = table.pixels
    if not pixels:
        return float("nan")
    return float((table.second * best_iou(table)).sum() / pixels)


def best_iou(table: Contingency, regions: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """For each region of the truth the largest IoU with a predicted one, of those that ``regions`` (I,) keeps; (J,)."""
    iou = table.shared / (table.first[table.i] + table.second[table.j] - table.shared)
    if regions is not None:
        iou = np.where(regions[table.i], iou, 0.0)
    best = np.zeros(len(table.second))
    np.maximum.at(best, table.j, iou)
    return best


def achievable_accuracy(table: Contingency) -> float:
    """Accuracy where each predicted region takes the truth's region it shares most with: 1/N sum_i max_j n_ij.

    It never falls where regions are cut: beside it the number of regions must be told.
    """
    pixels = table.pixels
    if not pixels:
        return float("nan")
    most = np.zeros(len(table.first), np.int64)
    np.maximum.at(most, table.i, table.shared)
    return int(most.sum()) / pixels
