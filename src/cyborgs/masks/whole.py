"""One region per image (Figure 5a's "whole crop"): the contrastive loss becomes one of image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cyborgs.masks.source import SourceDefaults, chunks
from cyborgs.structures import LabelMap


@dataclass(frozen=True)
class Whole(SourceDefaults):
    """Label 0 everywhere."""

    name: ClassVar[str] = "whole"
    void: ClassVar[int | None] = None
    needs_images: ClassVar[bool] = False

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Consecutive chunks; seed and cycle change nothing."""
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        """The uint8 (1, 1) map of a single 0 for each image."""
        return [LabelMap(np.zeros((1, 1), np.uint8), self.void)] * len(images)
