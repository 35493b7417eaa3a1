"""Regions of a label map: their mean features (Eq. 1), and the choice of which to use."""

from __future__ import annotations

import torch
from torch import Tensor

from cyborgs.ops.normalise import at_least_float32, no_autocast
from cyborgs.structures import MAX_LABELS


def region_pool(features: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
    """Eq. 1: h_m = mean of ``features`` over the cells whose label is m.

    ``features`` (B, C, h, w) floating, ``labels`` (B, h, w) uint8 (any integers), ``ids`` (B, R) integers ->
    (B, R, C), dtype of ``features``; rows of ids that are absent or negative are zero, and give no gradient.
    One matrix product for all images, regions and channels: deterministic on a GPU, gradient included.
    Reduced precision is computed in float32 and rounded once. Raises ValueError where shapes do not fit.
    """
    if features.ndim != 4 or labels.shape != (features.shape[0], *features.shape[2:]):
        raise ValueError(
            f"region_pool: features (B, C, h, w) {tuple(features.shape)} and labels (B, h, w) "
            f"{tuple(labels.shape)} do not fit"
        )
    if ids.ndim != 2 or ids.shape[0] != features.shape[0]:
        raise ValueError(f"region_pool: ids must be ({features.shape[0]}, R), got {tuple(ids.shape)}")
    with no_autocast(features):
        wide = at_least_float32(features)
        ids = ids.long().unsqueeze(2)
        # int64 on both sides: in uint8, the id -1 would be label 255.
        members = (labels.flatten(1).long().unsqueeze(1) == ids) & (ids >= 0)
        counts = members.sum(dim=2, keepdim=True).clamp_(min=1)
        sums = torch.bmm(members.to(wide.dtype), wide.flatten(2).transpose(1, 2))
        return (sums / counts).to(features.dtype)


def sample_regions(labels: Tensor, order: Tensor, count: int, void: int | None = None) -> Tensor:
    """The first ``count`` labels of ``order`` that are present in each map, -1 after them.

    ``labels`` (B, g, g) uint8, ``order`` (B, 256) uint8: a random order of all labels per image. Both views of an
    image get the same order, so that they keep the labels that they share. -> ids (B, count) int64.
    The label ``void`` is never taken. Raises ValueError where shapes do not fit.
    """
    if labels.ndim != 3 or order.shape != (labels.shape[0], MAX_LABELS):
        raise ValueError(
            f"sample_regions: labels (B, g, g) {tuple(labels.shape)} and order (B, {MAX_LABELS}) "
            f"{tuple(order.shape)} do not fit"
        )
    if count < 1:
        raise ValueError(f"sample_regions: count must be at least 1, got {count}")
    names = torch.arange(MAX_LABELS, device=labels.device)
    present = (labels.flatten(1).long().unsqueeze(2) == names).any(dim=1)
    if void is not None:
        present &= names != void
    ordered = order.long()
    present = present.gather(1, ordered)
    # A stable sort moves the present ones to the front in their order, without a scatter.
    first = torch.argsort((~present).to(torch.uint8), dim=1, stable=True)[:, :count]
    ids = torch.where(present, ordered, -1).gather(1, first)
    return torch.nn.functional.pad(ids, (0, count - ids.shape[1]), value=-1)
