"""How well stored maps fit the truth: best overlap per photo, since their labels mean something in a group alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cyborgs.features.extraction import UInt8
from cyborgs.metrics.segmentation import Regions, best_overlap


@dataclass(frozen=True)
class OverlapScore:
    """Best overlap of a set of photos (ABO per photo, then the mean over photos)."""

    mean: float
    """NaN where no photo holds an object."""
    per_photo: tuple[float, ...]
    """NaN where a photo's truth holds no object."""
    photos: int
    """Photos that count."""


def mean_best_overlap(
    maps: Callable[[int], UInt8],
    truths: Callable[[int], UInt8],
    count: int,
    *,
    regions: Regions = "components",
    void: int | None = None,
    ignore: tuple[int, ...] = (),
    min_pixels: int = 1,
) -> OverlapScore:
    """Best overlap of ``count`` photos; map and truth by number of the photo, settings as ``best_overlaps``."""
    values = np.array(
        [
            best_overlap(maps(i), truths(i), regions=regions, void=void, ignore=ignore, min_pixels=min_pixels)
            for i in range(count)
        ]
    )
    known = values[~np.isnan(values)]
    return OverlapScore(float(known.mean()) if known.size else float("nan"), tuple(map(float, values)), len(known))
