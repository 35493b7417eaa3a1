"""What was measured of each test image, by kind of figure (``contract.Judged``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from cyborgs.metrics.segmentation import Counts, MajorityScore, SegmentationScore, class_scores


@dataclass(frozen=True)
class Hits:
    """A share of right answers."""

    right: NDArray[np.bool_]
    """(images,)."""

    def __len__(self) -> int:
        return len(self.right)

    def score(self, weights: NDArray[np.int64]) -> float:
        """Weighted share."""
        return float(weights @ self.right / weights.sum())


class PixelCounts:
    """Pixels of photos by (prediction, class), summed over the draw: mIoU of the classes that it holds.

    Kept sparse: of 171 x 171 entries a photo fills a few dozen.

    Args:
        counts: int64 (predictions, classes) of each photo, dense or sparse.
        scores: of the counts of a draw; the predictions are the classes unless this matches them.
    """

    def __init__(
        self,
        counts: Sequence[Counts | sparse.csr_matrix],
        scores: Callable[[Counts], SegmentationScore | MajorityScore] = class_scores,
    ) -> None:
        if not counts:
            raise ValueError("there is no photo to score")
        self._shape = counts[0].shape
        self._rows = sparse.vstack([sparse.csr_matrix(c).reshape((1, -1)) for c in counts]).tocsr()
        self._scores = scores

    def __len__(self) -> int:
        return int(self._rows.shape[0])

    def total(self, weights: NDArray[np.int64]) -> Counts:
        """Counts of a draw, int64 (predictions, classes)."""
        found: Counts = np.asarray(self._rows.T @ weights).reshape(self._shape)
        return found

    def scores(self, weights: NDArray[np.int64]) -> SegmentationScore | MajorityScore:
        """All scores of a draw."""
        return self._scores(self.total(weights))

    def score(self, weights: NDArray[np.int64]) -> float:
        """mIoU."""
        return self.scores(weights).miou


@dataclass(frozen=True)
class Ranked:
    """Mean average precision over classes."""

    scores: NDArray[np.float64]
    """(images, classes)."""
    labels: NDArray[np.int8]
    """(images, classes): 1 present, -1 absent, 0 does not count."""
    precision: Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
    """(scores, present) -> AP of one class; NaN where no image has it."""

    def __len__(self) -> int:
        return len(self.scores)

    def score(self, weights: NDArray[np.int64]) -> float:
        """mAP over the classes that the draw holds."""
        found = self.by_class(weights)
        held = found[~np.isnan(found)]
        return float(held.mean()) if len(held) else float("nan")

    def by_class(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """AP of each class, (classes,), with image i counted ``weights[i]`` times; NaN where the draw lacks it."""
        drawn = np.repeat(np.arange(len(weights)), weights)
        found = np.full(self.scores.shape[1], np.nan)
        for c in range(len(found)):
            kept = drawn[self.labels[drawn, c] != 0]
            found[c] = self.precision(self.scores[kept, c], self.labels[kept, c] > 0)
        return found


EVENEST: Final = -4.0
"""Uniformity at t = 2 of directions spread over all sides: the squared distance of two of them is 2."""


@dataclass(frozen=True)
class Pairs:
    """How evenly images spread, from 0 (all the same) to 1: their uniformity over ``EVENEST``."""

    closeness: NDArray[np.float64]
    """(images, images): exp(-2 |x - y|^2)."""

    def __len__(self) -> int:
        return len(self.closeness)

    def score(self, weights: NDArray[np.int64]) -> float:
        """Over the pairs of different images: one that is drawn twice is no pair with itself. NaN where there is none."""
        w = weights.astype(np.float64)
        pairs = w.sum() ** 2 - w @ w
        if not pairs:
            return float("nan")
        mean = (w @ self.closeness @ w - (w * w) @ np.diag(self.closeness)) / pairs
        return float(min(1.0, max(0.0, np.log(mean) / EVENEST)))
