"""Frozen maps of a set of photos, kept in memory: computed once, small, joined at a common grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from cyborgs.features.extraction import Photos, Progress, iterate_maps, join

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

CELLS_PER_CHANNEL: Final = 16
"""Cells from which a correlation is taken, over the number of channels."""
STRIDE: Final = 8
"""Pixels per cell of the common grid."""
JOINED: Final = "joined"
"""Name of the one map that ``frozen_maps`` makes of several layers."""


@dataclass(frozen=True)
class Whitening:
    """(x - mean) @ matrix has zero mean and about unit covariance over the train photos' cells."""

    mean: Tensor
    """float32 (C,)."""
    matrix: Tensor
    """float32 (C, C)."""


@dataclass(frozen=True)
class FrozenMaps:
    """The maps of a set of photos, each layer at its own grid: a fifth of what a common grid would take."""

    layers: tuple[str, ...]
    maps: tuple[dict[str, Tensor], ...]
    """Per photo: (C, h, w) by layer, float16, or float32 where that overflows."""
    grids: tuple[tuple[int, int], ...]
    """Per photo: the common grid, one cell per 8 pixels of what the network saw."""
    sizes: tuple[tuple[int, int], ...]
    """Per photo: its size (H, W) before shrinking."""

    def __len__(self) -> int:
        return len(self.maps)

    def part(self, numbers: Sequence[int]) -> FrozenMaps:
        """Those of some photos, in the given order; nothing is copied."""
        return FrozenMaps(
            self.layers,
            tuple(self.maps[i] for i in numbers),
            tuple(self.grids[i] for i in numbers),
            tuple(self.sizes[i] for i in numbers),
        )

    def whitening(self, layer: str, *, shrinkage: float = 1e-3) -> Whitening:
        """What whitens a layer's channels over its cells, at the layer's own grid.

        Channels are standardised, then multiplied by (R + shrinkage I)^(-1/2), R their correlation. A constant channel
        becomes 0. The correlation is taken over every n-th cell, such that about CELLS_PER_CHANNEL cells per channel remain.
        """
        first = self.maps[0][layer]
        total, squares, cells = torch.zeros(len(first), dtype=torch.float64), torch.zeros(len(first)).double(), 0
        for one in self.maps:
            m = one[layer].double().flatten(1)
            total, squares, cells = total + m.sum(1), squares + m.square().sum(1), cells + m.shape[1]
        mean = total / cells
        deviation = (squares / cells - mean.square()).clamp_min(0).sqrt()
        constant = deviation <= 1e-6 * mean.abs() + 1e-12
        scale = torch.where(constant, 0.0, 1 / deviation.masked_fill(constant, 1.0))
        step = max(1, cells // (CELLS_PER_CHANNEL * len(first)))
        correlation, kept = torch.zeros(len(first), len(first), dtype=torch.float64), 0
        for one in self.maps:
            m = one[layer].flatten(1)[:, kept % step :: step].float()
            z = (m - mean[:, None].float()) * scale[:, None].float()
            correlation, kept = correlation + (z @ z.T).double(), kept + m.shape[1]
        values, vectors = torch.linalg.eigh(correlation / max(1, kept))
        root = vectors @ torch.diag((values.clamp_min(0) + shrinkage).rsqrt()) @ vectors.T
        return Whitening(mean.float(), (scale[:, None] * root).float())


def frozen_maps(
    backbone: Backbone,
    photos: Photos,
    layers: Sequence[str],
    *,
    short_side: int = 0,
    unit: bool = False,
    progress: Progress | None = None,
) -> FrozenMaps:
    """Compute and keep the maps of all photos (CamVid's train split, ResNet-18's layers 2 to 4: 0.4 GB).

    With ``unit`` the layers are joined to one map, ``JOINED``, of which each cell has unit length.
    """
    maps: dict[int, dict[str, Tensor]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    grids: dict[int, tuple[int, int]] = {}
    for i, (height, width), one in iterate_maps(backbone, photos, layers, short_side=short_side, progress=progress):
        if unit:
            one = {JOINED: F.normalize(join([one[name] for name in layers]), dim=0)}
        maps[i] = {name: _half(m) for name, m in one.items()}
        sizes[i] = height, width
        factor = min(1.0, short_side / min(height, width)) if short_side else 1.0
        grids[i] = -(-round(height * factor) // STRIDE), -(-round(width * factor) // STRIDE)
    order = range(len(photos))
    return FrozenMaps(
        (JOINED,) if unit else tuple(layers),
        tuple(maps[i] for i in order),
        tuple(grids[i] for i in order),
        tuple(sizes[i] for i in order),
    )


def _half(values: Tensor) -> Tensor:
    half = values.half()
    return half if bool(torch.isfinite(half).all()) else values.clone()
