"""Frozen maps of a backbone for photos of any size: computed once, kept small, joined at a common grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.errors import NotFiniteError
from cyborgs.masks.bootstrap import cap_short_side

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

UInt8 = NDArray[np.uint8]
Progress = Callable[[int, int], None]

CALL_PIXELS: Final = 4 * 640 * 480
"""Pixels that go through the network at once: constant, since another batch size may change the last bits."""
CELLS_PER_CHANNEL: Final = 16
"""Cells from which a correlation is taken, over the number of channels."""
STRIDE: Final = 8
"""Pixels per cell of the common grid."""
JOINED: Final = "joined"
"""Name of the one map that ``frozen_maps`` makes of several layers."""


class Photos(Protocol):
    """Photos by number: ``data.images.Images`` and labelled sets are such."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3)."""
        ...

    def name(self, i: int) -> str:
        """What messages call it."""
        ...


@contextmanager
def frozen(backbone: Backbone) -> Iterator[torch.device]:
    """Eval mode without gradients, the former mode afterwards; gives the backbone's device."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            yield next(backbone.parameters()).device
    finally:
        backbone.train(training)


def layer_maps(backbone: Backbone, images: Sequence[UInt8], layers: Sequence[str]) -> dict[str, Tensor]:
    """Maps float32 (B, C, h, w) by layer of B images uint8 (H, W, 3) of one size, in eval mode, on the device."""
    with frozen(backbone) as device:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().to(device)
        maps = backbone(backbone.normalise(batch), layers=list(layers))
    return {name: maps[name].float() for name in layers}


def iterate_maps(
    backbone: Backbone,
    photos: Photos,
    layers: Sequence[str],
    *,
    indices: Sequence[int] | None = None,
    short_side: int = 0,
    progress: Progress | None = None,
) -> Iterator[tuple[int, tuple[int, int], dict[str, Tensor]]]:
    """(index, its size (H, W) before shrinking, maps (C, h, w) on the CPU) of each photo, in no particular order.

    Photos of equal size share a call. ``short_side`` shrinks larger photos; 0: native size. Raises NotFiniteError naming
    the first photo whose maps hold NaN or infinity.
    """
    waiting: dict[tuple[int, ...], list[tuple[int, tuple[int, int], UInt8]]] = {}
    todo = range(len(photos)) if indices is None else indices
    done = 0

    def flush(shape: tuple[int, ...]) -> Iterator[tuple[int, tuple[int, int], dict[str, Tensor]]]:
        nonlocal done
        group = waiting.pop(shape)
        maps = {name: m.cpu() for name, m in layer_maps(backbone, [g[2] for g in group], layers).items()}
        for k, (i, size, _) in enumerate(group):
            one = {name: m[k] for name, m in maps.items()}
            broken = [name for name, m in one.items() if not bool(torch.isfinite(m).all())]
            if broken:
                raise NotFiniteError(f"{photos.name(i)}: {broken[0]} holds NaN or infinity. The weights are damaged.")
            done += 1
            if progress is not None:
                progress(done, len(todo))
            yield i, size, one

    for i in todo:
        image = photos.read(i)
        small = cap_short_side(image, short_side)
        group = waiting.setdefault(small.shape, [])
        group.append((i, (image.shape[0], image.shape[1]), small))
        if (len(group) + 1) * small.shape[0] * small.shape[1] > CALL_PIXELS:
            yield from flush(small.shape)
    for shape in list(waiting):
        yield from flush(shape)


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (B, C, h, w) at (height, width), bilinear with half-pixel centres; equal sizes pass through."""
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def join(maps: Sequence[Tensor]) -> Tensor:
    """Maps (C_l, h_l, w_l) of one image, brought to the finest of their grids and concatenated: (sum C_l, h, w)."""
    finest = max(maps, key=lambda m: m.shape[-1] * m.shape[-2])
    return torch.cat([resize(m[None], *finest.shape[-2:])[0] for m in maps])


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
