"""What protocols on frozen features have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.errors import printable
from cyborgs.evaluation.contract import Data
from cyborgs.evaluation.sets.classified import ClassifiedData
from cyborgs.metrics.accuracy import by_class
from cyborgs.ops.spectrum import POINT

Int = NDArray[np.int64]


def counts_of(data: Data, used: int) -> dict[str, int]:
    """The data's counts, of whose training photos ``used`` are the share of the labels."""
    counts = {**data.counts, "train": used}
    if used < data.counts["train"]:
        counts["skipped: train, beyond the share"] = data.counts["train"] - used
    return counts


def class_shares(right: NDArray[np.bool_], truth: Int, classes: Sequence[str]) -> Mapping[str, float]:
    """Share of each class's test photos that are right; NaN where there are none."""
    return dict(zip(classes, by_class(right, truth, len(classes)).tolist(), strict=True))


def collapsed(features: Tensor) -> list[str]:
    """A warning where unit features (N, D) are all the same."""
    spread = float((features - features.mean(dim=0)).square().sum(dim=1).mean())
    if len(features) < 2 or spread > POINT:
        return []
    return ["all photos have the same features (the network has collapsed): the figures say nothing about the photos."]


def all_vote(neighbours: Sequence[int], voters: int) -> list[str]:
    """A warning where more neighbours are asked for than there are."""
    more = [str(k) for k in neighbours if k > voters]
    if not more:
        return []
    return [f"k = {', '.join(more)} is more than the {voters} photos that vote: all of them vote."]


def unknown_classes(data: ClassifiedData, labels: Int) -> list[str]:
    """A warning where test photos have classes that no training photo has."""
    unknown = sorted(set(data.test.labels.tolist()) - set(labels.tolist()))
    if not unknown:
        return []
    names = ", ".join(printable(data.test.classes[c]) for c in unknown)
    count = int(np.isin(data.test.labels, unknown).sum())
    return [f"no training photo has these classes, so their {count} test photos are all wrong: {names}."]


def class_names(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """The classes' names, each once; numbers where they have none, and behind a name that two of them share."""
    if not names:
        return tuple(str(c) for c in range(classes))
    return tuple(name if names.count(name) == 1 else f"{name} ({c})" for c, name in enumerate(names))
