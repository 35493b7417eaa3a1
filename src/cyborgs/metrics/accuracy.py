"""Shares of right answers among many classes: top-k, and by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def ranks(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes stand before the true one: 0 where it is the answer. int64 (N,).

    By falling score; of equal scores the lower class stands first, as ``argmax`` has it, so that a constant network is
    right for one class alone. Raises ValueError where scores (N, C) are not finite.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"need scores (N, C) and labels (N,), got {scores.shape} and {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")
    own = np.take_along_axis(scores, labels[:, None], 1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < labels[:, None]))
    found: NDArray[np.int64] = before.sum(axis=1, dtype=np.int64)
    return found


def top_k(found: NDArray[np.int64], k: int) -> float:
    """Share of images whose true class is among the first k, of what ``ranks`` gives; NaN of none."""
    return float((found < k).mean()) if len(found) else float("nan")


def by_class(right: NDArray[np.bool_], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Share of right answers (N,) in each class, float64 (classes,); NaN where a class has no image."""
    images = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels, weights=right, minlength=classes)
    return np.where(images > 0, hits / np.maximum(images, 1), np.nan)
