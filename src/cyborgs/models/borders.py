"""Maps of whole photos whose borders are not made of zeros."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from cyborgs.models.backbone import Backbone

UNIT = 32
"""A border is a multiple of the largest stride: cells stay where they are in the photo."""


def photo_maps(backbone: Backbone, images: Tensor, layers: Sequence[str], border: int = 0) -> dict[str, Tensor]:
    """Maps by layer, (B, C, ceil(H / stride), ceil(W / stride)), of uint8 (B, 3, H, W) on the backbone's device.

    ``border``: pixels, a multiple of 32, by which the photo is mirrored beyond its edges before the network sees it;
    the cells beyond the edges are cut off again. 0: what lies beyond is what the network's padding makes of it, zeros,
    and its cells near the edge resemble each other. In a photo of at most ``border`` pixels less of it is mirrored.
    """
    height, width = images.shape[2:]
    rows, columns = (min(border, (side - 1) // UNIT * UNIT) for side in (height, width))
    pixels = backbone.normalise(images)
    if rows or columns:
        pixels = F.pad(pixels, (columns, columns, rows, rows), mode="reflect")
    maps: dict[str, Tensor] = backbone(pixels, list(layers))
    if not (rows or columns):
        return maps
    cut = {}
    for name, found in maps.items():
        stride = backbone.strides[name]
        top, left = rows // stride, columns // stride
        cut[name] = found[:, :, top : top + -(-height // stride), left : left + -(-width // stride)]
    return cut
