"""How spread out a cloud of vectors is: the figures that show a collapse."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cyborgs.ops.normalise import at_least_float32, no_autocast, unit_rows

POINT = 1e-10
"""A cloud of unit vectors with no more variance than this is a point."""


@torch.no_grad()
def effective_rank(rows: Tensor) -> Tensor:
    """exp of the entropy of the covariance's normalised eigenvalues (Roy and Vetterli, 2007), a float32 scalar.

    ``rows`` (N, D), centred here -> between 1 (a point or a line) and min(N - 1, D); NaN for fewer than two rows, and
    where a number is not finite. A total variance of at most ``POINT`` is a point's.
    """
    if len(rows) < 2:
        return rows.new_full((), math.nan, dtype=torch.float32)
    with no_autocast(rows):
        x = at_least_float32(rows)
        x = x - x.mean(dim=0)
        # The same eigenvalues but for zeros, of the smaller of two matrices.
        gram = (x.T @ x if x.shape[1] <= len(x) else x @ x.T).double() / len(x)
        total = gram.diagonal().sum()
        if not bool(torch.isfinite(total)):
            return torch.full_like(total, math.nan, dtype=torch.float32)
        shares = torch.linalg.eigvalsh(gram).clamp(min=0) / total.clamp(min=POINT)
        entropy = torch.special.entr(shares).sum()
        return torch.where(total > POINT, entropy.exp(), 1.0).float()


@torch.no_grad()
def unit_deviation(rows: Tensor) -> Tensor:
    """Standard deviation of unit vectors, mean over dimensions, times sqrt(D): a float32 scalar.

    ``rows`` (N, D) of any length -> 1 where directions are spread evenly, 0 where all are the same; NaN for fewer than
    two rows.
    """
    if len(rows) < 2:
        return rows.new_full((), math.nan, dtype=torch.float32)
    with no_autocast(rows):
        x = unit_rows(at_least_float32(rows))
        return (x.std(dim=0, correction=0).mean() * math.sqrt(x.shape[1])).float()
