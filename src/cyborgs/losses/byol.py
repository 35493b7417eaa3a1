"""BYOL's loss: the prediction of one view's embedding from the other's."""

from __future__ import annotations

import torch
from torch import Tensor

from cyborgs.ops.normalise import no_autocast, unit_rows


def byol_loss(pred1: Tensor, pred2: Tensor, target1: Tensor, target2: Tensor) -> Tensor:
    """L = mean of (2 - 2 cos(pred1, target2)) + (2 - 2 cos(pred2, target1)), a scalar from 0 to 8.

    All (..., D) of one shape and of any length; targets get no gradient. Computed in float32, or float64 where
    ``pred1`` is; a zero vector has cosine 0. Raises ValueError where shapes differ.
    """
    if any(t.shape != pred1.shape for t in (pred2, target1, target2)):
        raise ValueError(
            f"byol_loss: shapes differ: {[tuple(t.shape) for t in (pred1, pred2, target1, target2)]}",
        )
    with no_autocast(pred1):
        dtype = torch.float64 if pred1.dtype == torch.float64 else torch.float32
        p1, p2 = unit_rows(pred1.to(dtype)), unit_rows(pred2.to(dtype))
        t1, t2 = unit_rows(target1.detach().to(dtype)), unit_rows(target2.detach().to(dtype))
        return 4 - 2 * ((p1 * t2).sum(dim=-1) + (p2 * t1).sum(dim=-1)).mean()
