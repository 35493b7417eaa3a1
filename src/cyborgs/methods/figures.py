"""Figures of a step that show whether it goes well; computed at logged steps alone.

A figure that is not defined (fewer than two rows) is NaN, and left out of the log.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cyborgs.ops import effective_rank, unit_deviation
from cyborgs.ops.normalise import at_least_float32, unit_rows


@torch.no_grad()
def embedding_figures(
    online: Sequence[Tensor], target: Sequence[Tensor], valid: Sequence[Tensor] | None = None
) -> dict[str, Tensor]:
    """``embed/std_*`` (1: spread evenly, 0: collapsed) and ``embed/rank_*`` of unit-length embeddings of all views.

    ``online``, ``target``: (..., D) for each view; ``valid``: bool (...), the rows that count, or None for all.
    """
    figures = {}
    for name, views in (("online", online), ("target", target)):
        parts = views if valid is None else [view[v] for view, v in zip(views, valid, strict=True)]
        rows = torch.cat([part.detach().flatten(0, -2) for part in parts])
        figures[f"embed/std_{name}"] = unit_deviation(rows)
        figures[f"embed/rank_{name}"] = effective_rank(unit_rows(at_least_float32(rows)))
    return figures


@torch.no_grad()
def cluster_figures(maps: Tensor, labels: Tensor, prototypes: Tensor) -> dict[str, Tensor]:
    """Figures ``cluster/*`` of one slice: is every pixel the same, is one cluster everything, is nothing left but K points?

    ``maps`` (b, D, h, w): features; ``labels`` (b, h, w): their clusters; ``prototypes`` (K, D). ``k``; ``rank``: effective
    rank of the pixels' directions; ``pixel_cosine``: mean over all pairs of pixels; ``own_cosine``: mean of pixel and
    own prototype; ``largest_share``: of the pixels, in one cluster; ``perplexity_over_k``: 1 where clusters are equally
    large, 1 / K where all is one; ``top_label_share``: of an image's pixels, in its largest cluster, mean over images.
    """
    rows = unit_rows(at_least_float32(maps).permute(0, 2, 3, 1).flatten(0, 2))
    k = len(prototypes)
    flat = labels.flatten().long()
    own = torch.nn.functional.one_hot(labels.flatten(1).long(), k).sum(dim=1).float()  # (b, K): pixels of each cluster
    shares = own.sum(dim=0) / own.sum()
    return {
        "cluster/k": rows.new_tensor(float(k)),
        "cluster/rank": effective_rank(rows),
        "cluster/pixel_cosine": rows.mean(dim=0).square().sum(),
        "cluster/own_cosine": (rows * unit_rows(prototypes.to(rows.dtype))[flat]).sum(dim=1).mean(),
        "cluster/largest_share": shares.max(),
        "cluster/perplexity_over_k": torch.special.entr(shares).sum().exp() / k,
        "cluster/top_label_share": (own.max(dim=1).values / own.sum(dim=1)).mean(),
    }
