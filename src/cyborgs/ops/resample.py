"""Change of the grid of feature maps by fixed matrices.

Adaptive pooling and ``F.interpolate`` have backward passes that use atomics on a GPU; products with fixed matrices
are deterministic.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cyborgs.ops.normalise import at_least_float32, no_autocast


@lru_cache(maxsize=256)
def _matrix(n_in: int, n_out: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A tensor made in inference mode could never enter a graph, and this one outlives the mode.
    with torch.inference_mode(False), torch.no_grad():
        out = torch.arange(n_out, dtype=torch.float64).unsqueeze(1)
        cells = torch.arange(n_in, dtype=torch.float64)
        if n_out <= n_in:
            # In units of 1 / n_out of a cell all edges are whole numbers, so that overlaps are exact.
            upper = torch.minimum((out + 1) * n_in, (cells + 1) * n_out)
            lower = torch.maximum(out * n_in, cells * n_out)
            matrix = (upper - lower).clamp_(min=0) / n_in
        else:
            centre = ((out + 0.5) * (n_in / n_out) - 0.5).clamp_(0, n_in - 1)
            matrix = (1 - (cells - centre).abs()).clamp_(min=0)
        return matrix.to(device=device, dtype=dtype)


def pooling_matrix(
    n_in: int, n_out: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Weights (n_out, n_in) that take ``n_in`` cells to ``n_out`` cells; every row sums to 1.

    Area averages with fractional overlaps where n_out <= n_in; bilinear with half-pixel centres and clamped edges
    where n_out > n_in. The result is cached: do not change it in place. Raises ValueError for sizes below 1.
    """
    if n_in < 1 or n_out < 1:
        raise ValueError(f"a pooling matrix needs sizes of at least 1, got {n_in} -> {n_out}")
    return _matrix(int(n_in), int(n_out), dtype, torch.device(device))


def resample(maps: Tensor, grid: int | tuple[int, int]) -> Tensor:
    """``maps`` (B, C, h, w) floating -> (B, C, g, g), or (B, C, *grid) for a pair; same dtype.

    Equal sizes pass through; whole ratios average blocks; otherwise two pooling matrices, A_h maps A_w^T.
    Reduced precision is computed in float32 and rounded once. Raises ValueError unless there are four axes.
    """
    if maps.ndim != 4:
        raise ValueError(f"resample takes maps (B, C, h, w), got shape {tuple(maps.shape)}")
    height, width = (grid, grid) if isinstance(grid, int) else grid
    h, w = maps.shape[2:]
    if (h, w) == (height, width):
        return maps
    if height > 0 and width > 0 and h % height == 0 and w % width == 0:
        return F.avg_pool2d(maps, (h // height, w // width))
    with no_autocast(maps):
        wide = at_least_float32(maps)
        if h != height:
            wide = pooling_matrix(h, height, dtype=wide.dtype, device=wide.device) @ wide
        if w != width:
            wide = wide @ pooling_matrix(w, width, dtype=wide.dtype, device=wide.device).T
        return wide.to(maps.dtype)
