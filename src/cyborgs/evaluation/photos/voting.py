"""The weighted vote of the nearest: DINO's (facebookresearch/dino, eval_knn.py), without a loop over queries.

The k rows of the bank nearest by cosine vote for their class with weight exp(cosine / T), k = 20, T = 0.07.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

ROOM: Final = 1 << 26
"""Bytes of cosines that are held at once, float64: queries come in pieces."""


def nearest_rows(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines float64 (Q, k) and numbers int64 (Q, k) of the ``k`` rows of the bank nearest to each query, falling.

    Args:
        bank: unit rows (N, C), N at least k.
        queries: unit rows (Q, C).
        k: how many.

    Returns:
        Equal cosines in the order of the bank, everywhere alike.
    """
    bank = bank.double()
    near, order = [], []
    for part in torch.split(queries, max(1, ROOM // (8 * len(bank)))):
        similar = part.double() @ bank.T
        # topk breaks ties as it likes: it only tells the threshold.
        least = similar.topk(k, dim=1).values[:, -1:]
        equal = similar == least
        above = similar > least
        chosen = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
        columns = chosen.nonzero()[:, 1].view(len(part), k)
        values, places = torch.sort(similar.gather(1, columns), dim=1, descending=True, stable=True)
        near.append(values)
        order.append(columns.gather(1, places))
    if not near:
        return torch.zeros(0, k, dtype=torch.float64), torch.zeros(0, k, dtype=torch.int64)
    return torch.cat(near), torch.cat(order)


def votes(near: Tensor, voters: Tensor, classes: int, temperature: float) -> Tensor:
    """Votes for each class, float64 (Q, classes), up to a factor for each query.

    Args:
        near: cosines (Q, k), falling.
        voters: int64 (Q, k), the neighbours' classes.
        classes: how many.
        temperature: T of exp(cosine / T).
    """
    return torch.zeros(len(near), classes, dtype=torch.float64, device=near.device).scatter_add_(
        1, voters, _weights(near, temperature)
    )


def shares_of_votes(near: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Which share of the weights stands for each of several labels, float64 (Q, labels), 0 to 1.

    Shares, not sums, so that queries can be ranked among each other.

    Args:
        near: cosines (Q, k), falling.
        present: bool (Q, k, labels): which labels the neighbours have.
        temperature: T of exp(cosine / T).
    """
    weights = _weights(near, temperature)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (weights[:, None] @ present.double())[:, 0]


def _weights(near: Tensor, temperature: float) -> Tensor:
    # Less the nearest's: the weights' ratios are the same, and none overflows.
    return ((near - near[:, :1]) / temperature).exp()
