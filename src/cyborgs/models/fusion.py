"""Maps of several layers at one size, side by side in their channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cyborgs.ops.resample import pooling_matrix, resample


def fuse(maps: Sequence[Tensor], grid: int) -> Tensor:
    """The fusion of maps: (B, C_i, h_i, w_i) -> (B, sum C_i, grid, grid), without normalisation of a layer.

    Finer maps are averaged over areas, coarser ones enlarged bilinearly.
    """
    return torch.cat([resample(m, grid) for m in maps], dim=1)


def concatenate_at(maps: Sequence[Tensor], height: int, width: int) -> Tensor:
    """(B, C_i, h_i, w_i) -> (B, sum C_i, height, width): deeper maps bilinearly, finer ones by area; one alone as it is.

    What clusters several layers (Table 2d). By fixed matrices, not ``F.interpolate``: its backward pass adds up with
    atomics on a GPU, in any order.
    """
    parts = [_resize(m, height, width) for m in maps]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _resize(x: Tensor, height: int, width: int) -> Tensor:
    if x.shape[2] != height:
        rows = pooling_matrix(x.shape[2], height, dtype=x.dtype, device=x.device)
        x = torch.einsum("gh,bchw->bcgw", rows, x)
    if x.shape[3] != width:
        columns = pooling_matrix(x.shape[3], width, dtype=x.dtype, device=x.device)
        x = torch.einsum("bcgw,kw->bcgk", x, columns)
    return x
