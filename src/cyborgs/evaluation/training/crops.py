"""Photos with a class each as a training sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyborgs.evaluation.sets.labelled import Classified
from cyborgs.features.transforms import drawn_crop


@dataclass(frozen=True)
class Crops:
    """A random crop of each, mirrored half of the time, and its class."""

    photos: Classified
    size: int

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, i: int, draw: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Crop uint8 (size, size, 3) and class, int64, of photo i."""
        return drawn_crop(self.photos.read(i), self.size, draw), np.array(self.photos.labels[i])
