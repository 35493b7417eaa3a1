"""Settings of the masks. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskConfig:
    """Where the regions come from."""

    source: Literal["bootstrap", "grid", "whole", "none"] = "bootstrap"
    """bootstrap: clusters of the network's features; grid: n x n cells; whole: one region; none: no masks."""
    group_size: int = 16
    """Images that are clustered together in bootstrapping (Section 4.1)."""
    short_side: int = 0
    """Longest allowed short side, in pixels, of an image that is bootstrapped; 0: native size."""
    position: float = 0.0
    """Weight of a pixel's place beside its features (unit length) in bootstrapping; 0: features alone, as in the paper."""
    grid: int = 5
    """n of the n x n grid."""
    keep_generations: int = 0
    """Generations of masks that are kept; 0: all."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError(f"masks.group_size: need at least 1, got {self.group_size}")
        if self.short_side != 0 and self.short_side < 32:
            raise ValueError(f"masks.short_side: need 0 (native size) or at least 32, got {self.short_side}")
        if not 0 <= self.position < float("inf"):
            raise ValueError(f"masks.position: need a number of at least 0, got {self.position}")
        if not 1 <= self.grid <= 15:
            raise ValueError(f"masks.grid: need 1 to 15 (at most 225 cells), got {self.grid}")
        if self.keep_generations < 0:
            raise ValueError(f"masks.keep_generations: need 0 (all) or more, got {self.keep_generations}")
