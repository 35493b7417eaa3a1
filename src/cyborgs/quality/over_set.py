"""Measures that belong to a whole set of photos: clusters matched to classes, best overlap of each class' objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.errors import UserError
from cyborgs.metrics.intervals import Interval, figure_interval
from cyborgs.metrics.segmentation import Counts, MajorityScore, SegmentationScore, hungarian_scores, majority_scores
from cyborgs.quality.photo import PhotoScores

Floats = NDArray[np.float64]

SET_MEASURES: Final[dict[str, tuple[str, str]]] = {
    "hungarian_miou": ("mIoU, clusters matched one to one", "one matching for all photos (Hungarian)"),
    "hungarian_accuracy": ("accuracy, the same", "share of pixels that are right"),
    "majority_miou": ("mIoU, each cluster its majority class", "many-to-one; rises with K"),
    "majority_accuracy": ("accuracy, the same", "share of pixels that are right"),
    "mabo": ("mean average best overlap", "best overlap of objects, mean of each class, then over classes"),
}
"""Measures that belong to the whole set: what they are called, and what they say."""


@dataclass(frozen=True)
class ClassRow:
    """One class of the truth."""

    number: int
    name: str
    pixels: int
    iou: Interval | None = None
    """After the one-to-one matching; None: not measured."""
    majority_iou: Interval | None = None
    objects: int = 0
    best_overlap: Interval | None = None
    """Mean of its objects."""


def set_scores(
    photos: Sequence[PhotoScores],
    names: Sequence[str],
    wanted: Sequence[str],
    bootstrap: dict[str, Any],
    *,
    same_ids: bool,
    none: int | None = None,
) -> tuple[dict[str, Interval], tuple[ClassRow, ...], int]:
    """Measures of the whole set, the table of its classes, and K (0 where clusters were not matched).

    Args:
        photos: what each gave, with its counts by class.
        names: of the classes; empty: not known.
        wanted: of ``SET_MEASURES``.
        bootstrap: draws, level and seed.
        same_ids: labels mean the same in all photos, so that they can be matched to classes.
        none: label of pixels without a prediction.

    Raises:
        UserError: the truth holds a class beyond the names.
    """
    tables = [p.classes for p in photos if p.classes is not None]
    highest = max((int(t.second_labels[-1]) for t in tables if len(t.second_labels)), default=-1)
    size = max(len(names), highest + 1)
    if names and highest >= len(names):
        raise UserError(f"the truth holds class {highest}, but only {len(names)} classes have a name.")
    pixels = np.zeros(size, np.int64)
    for table in tables:
        pixels[table.second_labels] += table.second
    present = np.flatnonzero(pixels)
    whole: dict[str, Interval] = {}
    iou: dict[str, list[Interval]] = {}
    clusters = 0
    if same_ids and present.size:
        found, iou, clusters = _matched(photos, present, wanted, none, bootstrap)
        whole |= found
    overlap, objects = _objects(photos, size, bootstrap) if "mabo" in wanted else ([], np.zeros(size, np.int64))
    if overlap and objects.any():
        whole["mabo"] = overlap[-1]
    rows = []
    for place, c in enumerate(present.tolist()):
        values = {key: found[place] for key, found in iou.items()}
        name = names[c] if c < len(names) else f"class {c}"
        best = overlap[c] if objects[c] else None
        rows.append(
            ClassRow(c, name, int(pixels[c]), values.get("hungarian"), values.get("majority"), int(objects[c]), best)
        )
    return {name: whole[name] for name in SET_MEASURES if name in whole}, tuple(rows), clusters


def _matched(
    photos: Sequence[PhotoScores],
    present: NDArray[np.int64],
    wanted: Sequence[str],
    none_label: int | None,
    bootstrap: dict[str, Any],
) -> tuple[dict[str, Interval], dict[str, list[Interval]], int]:
    """Figures of clusters matched to classes, IoU of each class that is present, and K."""
    from scipy.sparse import csr_matrix

    labels = np.unique(np.concatenate([p.classes.first_labels for p in photos if p.classes is not None]))
    shape = (len(labels), len(present))
    row, column, value = [], [], []
    for number, photo in enumerate(photos):
        if (table := photo.classes) is not None:
            i = np.searchsorted(labels, table.first_labels)[table.i]
            j = np.searchsorted(present, table.second_labels)[table.j]
            row.append(np.full(len(i), number))
            column.append(i * shape[1] + j)
            value.append(table.shared)
    # Most photos hold few of the pairs.
    counts = csr_matrix(
        (np.concatenate(value), (np.concatenate(row), np.concatenate(column))), (len(photos), shape[0] * shape[1])
    )
    none = int(np.searchsorted(labels, none_label)) if none_label is not None and none_label in labels else None
    clusters = len(labels) - (none is not None)
    many = clusters > len(present)

    def figure(weights: NDArray[np.int64]) -> Floats:
        together: Counts = (weights @ counts).reshape(shape)
        scores: list[SegmentationScore | MajorityScore] = [hungarian_scores(together, none)]
        if many:
            scores.append(majority_scores(together, none=none))
        return np.concatenate([[s.miou, s.accuracy, *s.iou] for s in scores])

    found = figure_interval(figure, len(photos), **bootstrap)
    whole: dict[str, Interval] = {}
    iou: dict[str, list[Interval]] = {}
    for place, name in enumerate(("hungarian", "majority")[: 1 + many]):
        start = place * (2 + len(present))
        miou, accuracy, *rest = found[start : start + 2 + len(present)]
        whole |= {n: v for n, v in ((f"{name}_miou", miou), (f"{name}_accuracy", accuracy)) if n in wanted}
        if f"{name}_miou" in wanted:
            iou[name] = rest
    return whole, iou, clusters


def _objects(
    photos: Sequence[PhotoScores], size: int, bootstrap: dict[str, Any]
) -> tuple[list[Interval], NDArray[np.int64]]:
    """Best overlap of each class' objects, MABO after them, and the number of objects of each class."""
    sums, counts = np.zeros((len(photos), size)), np.zeros((len(photos), size), np.int64)
    for number, photo in enumerate(photos):
        for c, value in photo.overlaps:
            sums[number, c] += value
            counts[number, c] += 1

    def figure(weights: NDArray[np.int64]) -> Floats:
        objects = weights @ counts
        means = np.where(objects > 0, (weights @ sums) / np.maximum(objects, 1), np.nan)
        every = means[objects > 0]
        return np.append(means, every.mean() if every.size else np.nan)

    return figure_interval(figure, len(photos), **bootstrap), counts.sum(0)
