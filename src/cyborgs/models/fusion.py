"""Maps of several layers at one size, side by side in their channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cyborgs.ops.resample import resample


def concatenate_at(maps: Sequence[Tensor], height: int, width: int) -> Tensor:
    """(B, C_i, h_i, w_i) -> (B, sum C_i, height, width): coarser maps bilinearly, finer ones by area; one alone as it is.

    What clusters several layers (Table 2d). By ``ops.resample``, not ``F.interpolate``, whose backward pass adds up with
    atomics on a GPU, in any order.
    """
    parts = [resample(m, (height, width)) for m in maps]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
