"""Loss 1: the mask-dependent contrastive loss (Eq. 2; DetCon-B), gathered over processes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cyborgs import distributed
from cyborgs.ops.normalise import no_autocast, unit_rows

EXCLUDED = -1e9
"""Logit of a column that does not take part: large enough for exp to give zero, and finite, unlike -inf."""


def mask_contrastive_loss(
    pred1: Tensor,
    pred2: Tensor,
    target1: Tensor,
    target2: Tensor,
    ids1: Tensor,
    ids2: Tensor,
    valid1: Tensor | None = None,
    valid2: Tensor | None = None,
    *,
    temperature: float = 0.1,
    normalise: Literal["slots", "matched"] = "slots",
) -> Tensor:
    """Eq. 2, symmetrised: the ``loss`` of ``mask_contrastive_terms``, a scalar."""
    return mask_contrastive_terms(
        pred1,
        pred2,
        target1,
        target2,
        ids1,
        ids2,
        valid1,
        valid2,
        temperature=temperature,
        normalise=normalise,
    )["loss"]


def mask_contrastive_terms(
    pred1: Tensor,
    pred2: Tensor,
    target1: Tensor,
    target2: Tensor,
    ids1: Tensor,
    ids2: Tensor,
    valid1: Tensor | None = None,
    valid2: Tensor | None = None,
    *,
    temperature: float = 0.1,
    normalise: Literal["slots", "matched"] = "slots",
) -> dict[str, Tensor]:
    """Eq. 2 for both views, and what to log beside it.

    ``pred`` (online predictions), ``target`` (target projections, without gradient): (B, R, D) each, of any length;
    ``ids`` (B, R) integers, ``valid`` (B, R) bool (None: ids >= 0). Computed in float32, or float64 where ``pred1``
    is. For an anchor a of view v, label m, image b:

        CE(a) = log sum_{c in C(a)} exp(cos(a, c) / T)  -  mean_{p in P(a)} cos(a, p) / T
        loss  = sum_v sum_a [P(a) not empty] CE(a) / area(a)  /  (B R)

    P(a) are the valid targets of b in the other view that carry m; C(a) all valid targets of both views of the
    global batch, less those of b in the anchor's own view that carry m; area(a) is the number of valid slots of b in
    the anchor's own view that carry m. ``normalise="matched"`` divides by M = sum_a [P(a) not empty] / area(a) of one
    view instead, the number of labels that both views of an image share (the same for both views).

    With several processes each calls this with a batch of the same shape: anchors are the local ones, targets those
    of all. B is then the local batch, and M its mean over processes, so that the mean over processes of losses and
    gradients (what DDP takes) is that of the joined batch.

    Returns ``loss``, and without gradient, for the local anchors alone, ``matched`` (the share of the slots of both
    views that are anchors with a positive) and ``matched_mean`` (the mean of CE over them, weighted by 1 / area).
    Raises ValueError where shapes do not fit or a setting is unknown.
    """
    shape = pred1.shape
    if pred1.ndim != 3 or any(t.shape != shape for t in (pred2, target1, target2)):
        raise ValueError(
            "mask_contrastive_loss: predictions and targets must all be (B, R, D), got "
            f"{[tuple(t.shape) for t in (pred1, pred2, target1, target2)]}"
        )
    if any(t is not None and t.shape != shape[:2] for t in (ids1, ids2, valid1, valid2)):
        raise ValueError(f"mask_contrastive_loss: ids and valid must be {tuple(shape[:2])}, one for each slot")
    if normalise not in ("slots", "matched"):
        raise ValueError(f"normalise: need 'slots' or 'matched', got {normalise!r}")
    if temperature <= 0:
        raise ValueError(f"temperature: need a positive number, got {temperature!r}")
    valid1 = ids1 >= 0 if valid1 is None else valid1.bool()
    valid2 = ids2 >= 0 if valid2 is None else valid2.bool()
    with no_autocast(pred1):
        dtype = torch.float64 if pred1.dtype == torch.float64 else torch.float32
        # One message for everything: the targets, cut free of the graph, with their validity as a last channel.
        local = torch.cat(
            [
                torch.cat([unit_rows(torch.where(v, t.detach().to(dtype), 0)), v.to(dtype)], dim=2)
                for t, v in ((target1, valid1.unsqueeze(2)), (target2, valid2.unsqueeze(2)))
            ],
            dim=1,
        )
        everything = distributed.all_gather(local)
        view1, view2 = everything[:, : shape[1]], everything[:, shape[1] :]
        first = distributed.rank() * shape[0]
        ce1, weight1 = _direction(pred1.to(dtype), view2, view1, ids1, ids2, valid1, valid2, first, temperature)
        ce2, weight2 = _direction(pred2.to(dtype), view1, view2, ids2, ids1, valid2, valid1, first, temperature)
        total = (ce1 * weight1).sum() + (ce2 * weight2).sum()
        weights = (weight1.sum() + weight2.sum()) / 2
        if normalise == "slots":
            loss = total / (shape[0] * shape[1])
        else:
            shared = distributed.all_reduce_sum(weights) / distributed.world_size()
            loss = total / torch.where(shared > 0, shared, 1)
        return {
            "loss": loss,
            "matched": torch.stack([weight1, weight2]).gt(0).to(dtype).mean(),
            "matched_mean": total.detach() / torch.where(weights > 0, 2 * weights, 1),
        }


def _direction(
    pred: Tensor,
    other: Tensor,
    own: Tensor,
    own_ids: Tensor,
    other_ids: Tensor,
    own_valid: Tensor,
    other_valid: Tensor,
    first: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and weight, (B, R) each, of the anchors of one view.

    ``other`` and ``own`` (G, R, D + 1): all targets of the other view and of the anchor's own, with their validity.
    """
    b, r, d = pred.shape
    # An invalid slot may hold anything; as zeros it gets no gradient from its normalisation.
    anchors = unit_rows(torch.where(own_valid.unsqueeze(2), pred, 0)).reshape(b * r, d)
    targets = torch.cat([other, own]).reshape(-1, d + 1)
    column = (1 - targets[:, d]) * EXCLUDED
    logits = torch.addmm(column, anchors, targets[:, :d].T, alpha=1 / temperature)
    blocks = logits.view(b, r, 2, -1, r)  # anchor's image and slot; view, image and slot of the target
    image = torch.arange(b, device=pred.device)

    positive = (own_ids.unsqueeze(2) == other_ids.unsqueeze(1)) & own_valid.unsqueeze(2) & other_valid.unsqueeze(1)
    positives = positive.sum(dim=2)
    across = blocks[image, :, 0, first + image]  # (B, R, R): the other view of the same image
    attraction = torch.where(positive, across, 0).sum(dim=2) / positives.clamp(min=1)

    # An invalid anchor excludes nothing, but it has no weight either.
    same = (own_ids.unsqueeze(2) == own_ids.unsqueeze(1)) & own_valid.unsqueeze(2) & own_valid.unsqueeze(1)
    taboo = torch.zeros(b, r, 2, other.shape[0], r, dtype=torch.bool, device=pred.device)
    taboo[image, :, 1, first + image] = same
    partition = torch.logsumexp(logits.masked_fill(taboo.view_as(logits), EXCLUDED), dim=1).view(b, r)

    matched = positives > 0
    # Before any reduction: an anchor without a positive must leave no trace, whatever its numbers are.
    ce = torch.where(matched, partition - attraction, 0)
    return ce, matched.to(pred.dtype) / same.sum(dim=2).clamp(min=1)
