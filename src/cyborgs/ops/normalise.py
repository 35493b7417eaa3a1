"""Unit vectors that are safe at zero, and arithmetic that autocast does not touch."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12
"""Vectors no longer than this count as zero (the eps of ``torch.nn.functional.normalize``)."""


def unit_rows(x: Tensor) -> Tensor:
    """Divide vectors along the last axis by their length; a zero vector stays zero, NaN stays NaN.

    ``x`` (..., D) floating -> (..., D), same dtype. Other than ``F.normalize``, whose gradient at zero is 1e12 in
    float32 and NaN in float16, a zero vector gets a gradient of exactly zero.
    """
    squares = x.square().sum(dim=-1, keepdim=True)
    zero = squares <= SMALLEST_NORM**2  # false for NaN, which must show, not pass for a zero
    # The inner where keeps sqrt away from zero, where its slope is infinite.
    length = torch.where(zero, torch.ones_like(squares), squares).sqrt()
    return torch.where(zero, torch.zeros_like(x), x / length)


def at_least_float32(x: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def no_autocast(x: Tensor) -> torch.autocast:
    """A context in which operations on the device of ``x`` keep the precision of their inputs."""
    return torch.autocast(x.device.type, enabled=False)
