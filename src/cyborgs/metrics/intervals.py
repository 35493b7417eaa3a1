"""How far a figure could be off, had other photos been drawn: percentile bootstrap over photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.seeds import numpy_generator

DRAWS: Final = 1000
_STREAM: Final = 20  # apart from the other streams of evaluations
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A figure, and where it lies in ``level`` of the draws of as many photos, with repeats."""

    value: float
    low: float
    high: float
    photos: int
    """Photos that count."""


def weights(photos: int, draws: int = DRAWS, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """How often each photo is drawn, int64 (photos,), for each draw."""
    generator = numpy_generator(seed, "evaluation", _STREAM)
    for _ in range(draws):
        yield np.bincount(generator.integers(0, photos, photos), minlength=photos)


def percentiles(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The middle ``level`` of the values that are finite; NaN where none is."""
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: Floats, *, draws: int = DRAWS, level: float = 0.95, seed: int = 0) -> Interval:
    """Of the mean of one value a photo; those that are NaN (not measured) are left out of figure and draws."""
    known = values[~np.isnan(values)]
    if not known.size:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    size = len(known)
    return figure_interval(lambda w: np.array([w @ known / size]), size, draws=draws, level=level, seed=seed)[0]


def figure_interval(
    figure: Callable[[NDArray[np.int64]], Floats],
    photos: int,
    *,
    draws: int = DRAWS,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Of figures that belong to the whole set, such as an mIoU: photos are drawn, the figures made anew of each draw.

    Args:
        figure: how often each photo counts, int64 (photos,), to the figures, float64 (F,).
        photos: how many there are.
        draws: of the bootstrap.
        level: share of the draws between low and high.
        seed: of the draws.
    """
    values = figure(np.ones(photos, np.int64))
    drawn = np.array([figure(w) for w in weights(photos, draws, seed)]).reshape(draws, len(values))
    return [Interval(float(v), *percentiles(drawn[:, f], level), photos) for f, v in enumerate(values)]
