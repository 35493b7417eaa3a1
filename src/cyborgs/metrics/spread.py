"""What features without any label tell: alignment and uniformity (Wang and Isola, 2020)."""

from __future__ import annotations

import math
from typing import Final

from torch import Tensor

from cyborgs.ops.normalise import unit_rows

ROOM: Final = 1 << 26
"""Bytes of distances that are held at once."""


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of the two unit vectors of each photo, (N, D) and (N, D): 0 to 4, small is good."""
    if first.shape != second.shape:
        raise ValueError(f"pairs differ in shape: {tuple(first.shape)} and {tuple(second.shape)}")
    return float((first.double() - second.double()).square().sum(dim=1).mean())


def closeness(rows: Tensor, t: float = 2.0) -> Tensor:
    """exp(-t |x - y|^2) of all pairs of unit vectors: rows (N, D) -> float64 (N, N), what ``uniformity`` is the log mean of."""
    x = unit_rows(rows.double())
    return (2 * x @ x.T - 2).clamp_(max=0).mul_(t).exp_()


def uniformity(rows: Tensor, t: float = 2.0) -> float:
    """log of the mean over all pairs of exp(-t |x - y|^2): 0 where all unit vectors are the same, else negative.

    rows (N, D) of unit length; NaN for fewer than two.
    """
    n = len(rows)
    if n < 2:
        return math.nan
    x = unit_rows(rows.double())  # as float32 they are so to 7 digits alone
    total = 0.0
    for first in range(0, n, step := max(1, ROOM // (8 * n))):
        squares = (2 - 2 * x[first : first + step] @ x.T).clamp(min=0)
        total += float((-t * squares).exp().sum())
    # Each pair was counted twice, and each vector once with itself.
    return math.log((total - n) / (n * (n - 1)))
