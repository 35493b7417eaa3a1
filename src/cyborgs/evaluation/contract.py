"""What protocols are given, and what they answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Data(Protocol):
    """The labelled photos of a protocol, opened."""

    @property
    def counts(self) -> Mapping[str, int]:
        """``train``, ``test``, and what was left out and why (``skipped: ...``)."""

    @property
    def fingerprint(self) -> str:
        """Of the names of all files and of the split: equal data, equal fingerprint."""


class Judged(Protocol):
    """What was measured of each test image, such that the figure can be had of any draw of them."""

    def __len__(self) -> int: ...

    def score(self, weights: NDArray[np.int64]) -> float:
        """The main figure with test image i counted ``weights[i]`` times, (images,)."""


@dataclass(frozen=True)
class Context:
    """What a protocol may use beside backbone, data and settings."""

    seed: int = 0
    """Order of images, initial heads, drawn splits."""
    share: float = 1.0
    """Share of the training labels, drawn from the seed so that each class keeps its share: label efficiency."""
    device: str = "cpu"
    workers: int = 0
    """Loader processes; the result does not depend on it."""
    cache: Path | None = None
    """Folder of features of frozen networks (``features/cache.py``); None: nothing is kept."""
    memory: dict[str, Any] | None = None
    """What may stay in memory from one evaluation to the next, where several follow on one backbone; None: nothing."""
    out: Path | None = None
    """Folder for checkpoints and the log of what is trained, from which it goes on; None: a temporary one."""
    say: Callable[[str], None] = field(default=lambda text: None)
    """Takes lines for people."""
    progress: Callable[[int, int], None] | None = None
    """Called with photos done and photos in all."""


@dataclass(frozen=True)
class Result:
    """What a protocol measured. Shares from 0 to 1."""

    metric: str
    """The main figure's name in ``figures``."""
    figures: Mapping[str, float]
    """By name; NaN where there is nothing to measure."""
    judged: Judged
    """For intervals and paired comparisons of the main figure."""
    settings: Mapping[str, Any]
    """All of them, as used."""
    counts: Mapping[str, int]
    """Of the data: used, skipped and why."""
    seed: int
    per_class: Mapping[str, float] = field(default_factory=dict)
    """The main figure's parts by class name; NaN where the test images lack the class."""
    warnings: tuple[str, ...] = ()
    """What a reader must know beside the figures."""

    @property
    def value(self) -> float:
        """The main figure."""
        return self.figures[self.metric]
