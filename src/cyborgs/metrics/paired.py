"""Is one backbone better than another? Paired comparison over draws of the test images and of the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cyborgs.metrics.intervals import Interval, percentiles
from cyborgs.seeds import numpy_generator

_STREAM = 30  # of numpy_generator(seed, "evaluation", ...)
CERTAIN = 0.05
FEW = 20
"""Test images that are said to be few."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Main figure of one less that of another, in shares."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, from the share of draws on the other side of 0: (k + 1) / (draws + 1), twice the smaller tail, at most 1, and
    at least 2 / 2^images, which is what signs of so few images can show. NaN for one image."""
    images: int
    seeds: int

    @property
    def shows(self) -> bool:
        """The interval lies on one side of 0, and p is at most 0.05."""
        return (self.low > 0 or self.high < 0) and self.p <= CERTAIN


def few_images(images: int) -> list[str]:
    """A warning where intervals and p say little."""
    if images >= FEW:
        return []
    return [f"only {images} test image{'s' if images > 1 else ''}: intervals and p of so few say little."]


def span(low: float, high: float, sign: str = "") -> str:
    """An interval in percent, as tables show it; a dash where there is none. ``sign``: "+" shows it."""
    if np.isnan(low) or np.isnan(high):
        return "–"
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def seed_draws(seeds: int, draws: int) -> NDArray[np.int64]:
    """Which seeds each draw averages, int64 (draws, seeds), with repeats; the same for all that are compared."""
    generator = numpy_generator(0, "evaluation", _STREAM)
    found: NDArray[np.int64] = generator.integers(0, seeds, (draws, seeds))
    return found


def _drawn(scores: Sequence[Floats]) -> Floats:
    """Mean over drawn seeds of the figure on drawn images, (draws,); scores: (draws,) for each seed."""
    table = np.stack(scores)
    chosen = seed_draws(len(table), table.shape[1])
    means: Floats = table[chosen, np.arange(table.shape[1])[:, None]].mean(axis=1)
    return means


def _spread(drawn: Floats, images: int, level: float) -> tuple[float, float]:
    """``percentiles`` of the draws; NaN for one image, of which every draw is the same."""
    return percentiles(drawn, level) if images > 1 else (float("nan"), float("nan"))


def mean_over(values: Sequence[float], scores: Sequence[Floats], images: int, level: float = 0.95) -> Interval:
    """The mean of the seeds' figures, and its interval over draws of images and seeds.

    Args:
        values: the figure with each seed.
        scores: its draws with each seed, (draws,).
        images: test images.
        level: of the interval.
    """
    return Interval(float(np.mean(values)), *_spread(_drawn(scores), images, level), images)


def difference(
    a: Sequence[float],
    b: Sequence[float],
    drawn_a: Sequence[Floats],
    drawn_b: Sequence[Floats],
    images: int,
    level: float = 0.95,
) -> Difference:
    """a less b, paired: seed s of one with seed s of the other, and the same images in each draw.

    Args:
        a: the figure with each seed.
        b: the other's, with the same seeds.
        drawn_a: draws with each seed, (draws,): draw d of both is of the same images.
        drawn_b: the other's.
        images: test images.
        level: of the interval.

    Raises:
        ValueError: other numbers of seeds or draws.
    """
    if len(a) != len(b) or [len(x) for x in drawn_a] != [len(x) for x in drawn_b] or len(a) == 0:
        raise ValueError("a paired comparison needs the same seeds and draws of both")
    found = _drawn([x - y for x, y in zip(drawn_a, drawn_b, strict=True)])
    known = found[np.isfinite(found)]
    tail = min((known <= 0).sum(), (known >= 0).sum()) if known.size else 0
    p = min(1.0, max(2 * (tail + 1) / (known.size + 1), 2.0 ** (1 - images)))
    low, high = _spread(found, images, level)
    if images < 2:
        p = float("nan")
    return Difference(float(np.mean(a) - np.mean(b)), low, high, float(p), images, len(a))
