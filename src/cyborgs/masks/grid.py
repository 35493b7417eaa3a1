"""A fixed grid of n x n regions per image (Figure 5a's "5x5 grid")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cyborgs.masks.source import SourceDefaults, chunks
from cyborgs.structures import LabelMap


@dataclass(frozen=True)
class Grid(SourceDefaults):
    """Labels 0..n*n-1 in rows, whatever the image shows: cell i of n covers [i/n, (i+1)/n) of it."""

    n: int = 5
    """Cells along each side, 1 to 15 (a map holds at most 255 regions)."""

    name: ClassVar[str] = "grid"
    void: ClassVar[int | None] = None
    needs_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.n <= 15:
            raise ValueError(f"a grid has 1 to 15 cells a side, got {self.n}")

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Consecutive chunks; seed and cycle change nothing."""
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        """The same uint8 (n, n) map for each image."""
        labels = np.arange(self.n * self.n, dtype=np.uint8).reshape(self.n, self.n)
        return [LabelMap(labels, self.void)] * len(images)
