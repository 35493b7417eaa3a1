"""A protocol that takes no time: how many of the test images a number of the backbone's own "knows"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cyborgs.evaluation.contract import Context, Result
from cyborgs.metrics.judged import Hits
from cyborgs.models.backbone import Backbone

COUNTS = {"train": 100, "test": 80}
calls: list[tuple[int, float]] = []
"""(seed, share) of each evaluation."""


@dataclass(frozen=True)
class ToyData:
    """80 test images."""

    fingerprint: str = "toy"

    @property
    def counts(self) -> Mapping[str, int]:
        return dict(COUNTS)


def open_data(data: str, settings: Any, seed: int, data_set: str = "") -> ToyData:
    return ToyData(data)


def evaluate(backbone: Backbone, data: ToyData, settings: Any, context: Context) -> Result:
    """Knows a share of the images that grows with the first weight of the network and the share of the labels."""
    calls.append((context.seed, context.share))
    level = float(next(iter(backbone.weights().values())).flatten()[0])
    rng = np.random.default_rng(context.seed)
    right = rng.random(80) < (0.3 + level) * (0.5 + context.share / 2)
    warnings = ("level is high.",) if level > 0.3 else ()
    figures = {"top1": float(right.mean()), "nothing": float("nan")}
    return Result(
        "top1", figures, Hits(right), asdict(settings) | {"layer": "layer4"}, data.counts, context.seed, {}, warnings
    )
