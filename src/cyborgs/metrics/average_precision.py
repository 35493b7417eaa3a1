"""Average precision, as scikit-learn and as OpenSelfSup compute it. Not VOC's 11 points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def _curve(scores: Float, present: Bool) -> tuple[Float, Float]:
    """Precision and recall at each distinct score, from the highest down: equal scores cannot be told apart."""
    if scores.shape != present.shape or scores.ndim != 1:
        raise ValueError(f"scores and labels are one number an image, got {scores.shape} and {present.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    hits = np.cumsum(present[order])[last]
    return hits / (last + 1), hits / hits[-1]


def average_precision(scores: Float, present: Bool) -> float:
    """scikit-learn's: the sum over falling scores of (r_i - r_(i-1)) p_i, p precision and r recall.

    scores (N,), present (N,). NaN where no image has the class.
    """
    if not present.any():
        return float("nan")
    precision, recall = _curve(scores, present)
    return float(np.diff(recall, prepend=0.0) @ precision)


def envelope_average_precision(scores: Float, present: Bool) -> float:
    """OpenSelfSup's and VOC's since 2010: the same sum with p_i the largest of p_j, j >= i. Never less than the other."""
    if not present.any():
        return float("nan")
    precision, recall = _curve(scores, present)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.diff(recall, prepend=0.0) @ highest)
