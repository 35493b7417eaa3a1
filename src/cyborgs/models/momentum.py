"""The target network: a running mean of the online one's parameters."""

from __future__ import annotations

import copy
import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def target_of(online: M) -> M:
    """A copy with the same weights and buffers, whose parameters need no gradient."""
    return copy.deepcopy(online).requires_grad_(False)


@torch.no_grad()
def update_target(online: nn.Module, target: nn.Module, m: float) -> None:
    """xi <- m xi + (1 - m) theta, in place, for parameters alone: the target's BatchNorm keeps its own statistics.

    Raises:
        ValueError: m is outside of 0..1, or the two have not the same number of parameters.
    """
    if not 0 <= m <= 1:
        raise ValueError(f"momentum of the target: need 0 to 1, got {m}")
    sources: list[Tensor] = list(online.parameters())
    targets: list[Tensor] = list(target.parameters())
    if len(sources) != len(targets):
        raise ValueError(f"the online network has {len(sources)} parameters, the target {len(targets)}")
    if targets:
        torch._foreach_lerp_(targets, sources, 1 - m)


def momentum_at(progress: float, base: float, schedule: Literal["constant", "cosine"] = "constant") -> float:
    """m at a share of the run: ``base`` throughout (docs/method.md), or BYOL's 1 - (1 - base) (cos(pi p) + 1) / 2.

    Args:
        progress: share of the run done, 0..1.
        base: m at the beginning.
        schedule: ``constant``, or ``cosine``, which ends at 1.
    """
    if schedule == "constant":
        return base
    if schedule == "cosine":
        return 1 - (1 - base) * (math.cos(math.pi * min(max(progress, 0.0), 1.0)) + 1) / 2
    raise ValueError(f"schedule of the target's momentum: constant or cosine, got {schedule!r}")
