"""Do the borders of regions lie where the truth has them?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.data.palette import boundaries

TOLERANCE: Final = 0.0075
"""Of the picture's diagonal: BSDS's."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryScore:
    """Shares from 0 to 1."""

    precision: float
    """Predicted border pixels near a true one; 1 where nothing is predicted and nothing is there."""
    recall: float
    """True border pixels near a predicted one."""
    f: float
    """2PR / (P + R)."""


def known_boundaries(labels: NDArray[np.integer], known: Bools) -> Bools:
    """Where a pixel differs from its right or lower neighbour, both known; (H, W) -> bool (H, W)."""
    if known.all():
        return boundaries(labels)
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & known[:, :-1] & known[:, 1:]
    edge[:-1] |= (labels[:-1] != labels[1:]) & known[:-1] & known[1:]
    return edge


def reach(shape: tuple[int, int], tolerance: float = TOLERANCE) -> float:
    """How far from a border a hit may lie: ``tolerance`` times the diagonal, at least 1 pixel."""
    return max(1.0, tolerance * float(np.hypot(*shape)))


def boundary_score(
    pred: NDArray[np.integer], truth: NDArray[np.integer], known: Bools | None = None, *, tolerance: float = TOLERANCE
) -> BoundaryScore:
    """Boundary F of two maps (H, W) of one shape; a pixel of a border hits where one of the other's lies near.

    Looser than BSDS's benchmark, which matches pixels one to one: here several may hit the same one. ``known`` (H, W):
    False where the truth is void; a border that needs such a pixel counts in neither map. Both without borders: all 1;
    one of them: all 0.
    """
    if pred.shape != truth.shape or pred.ndim != 2:
        raise ValueError(f"prediction and truth must be maps of one shape, got {pred.shape} and {truth.shape}")
    known = np.ones(truth.shape, bool) if known is None else known
    mine, theirs = known_boundaries(pred, known), known_boundaries(truth, known)
    return edge_score(mine, theirs, reach((truth.shape[0], truth.shape[1]), tolerance))


def edge_score(mine: Bools, theirs: Bools, distance: float) -> BoundaryScore:
    """The same of two sets of border pixels, predicted and true, with hits up to ``distance`` pixels away."""
    if not mine.any() or not theirs.any():
        same = float(mine.any() == theirs.any())
        return BoundaryScore(same, same, same)
    precision, recall = _near(mine, theirs, distance), _near(theirs, mine, distance)
    both = precision + recall
    return BoundaryScore(precision, recall, 2 * precision * recall / both if both else 0.0)


def _near(mine: Bools, theirs: Bools, distance: float) -> float:
    """Share of ``mine`` that lies within ``distance`` of ``theirs``, which is not empty."""
    away = cv2.distanceTransform((~theirs).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[mine]
    # Squares of distances are whole: rounded, a pixel exactly at the limit is not lost to float32.
    return float((np.rint(away.astype(np.float64) ** 2) <= distance**2 + 1e-9).mean())
