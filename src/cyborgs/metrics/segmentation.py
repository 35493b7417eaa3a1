"""Measures of label maps against truth (docs/method.md, "Measures of masks"): Hungarian and plain mIoU, best overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cyborgs.metrics.partition import best_iou
from cyborgs.ops.contingency import contingency

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class SegmentationScore:
    """Scores of one confusion matrix. Shares from 0 to 1; NaN where no pixel of truth was counted."""

    miou: float
    """Mean IoU over the classes that the truth holds."""
    accuracy: float
    """Share of pixels that are right."""
    iou: tuple[float, ...]
    """IoU per class; NaN for a class that the truth does not hold."""
    matching: tuple[int, ...]
    """Prediction that stands for each class; -1: none."""


def confusion(
    pred: NDArray[np.integer], truth: NDArray[np.integer], n_pred: int, n_true: int, void: int | None = None
) -> Counts:
    """Pixels by (prediction, class): int64 (n_pred, n_true), without the pixels whose truth is ``void``.

    Maps of equal shape. Raises ValueError where shapes differ or a value lies beyond its count.
    """
    if pred.shape != truth.shape:
        raise ValueError(f"prediction and truth differ in shape: {pred.shape} and {truth.shape}")
    p, t = pred.ravel().astype(np.int64), truth.ravel().astype(np.int64)
    if void is not None:
        kept = t != void
        p, t = p[kept], t[kept]
    for name, values, limit in (("prediction", p, n_pred), ("truth", t, n_true)):
        if values.size and (values.min() < 0 or values.max() >= limit):
            raise ValueError(f"{name}: labels must be 0 to {limit - 1}, found {values.min()} to {values.max()}")
    return np.bincount(p * n_true + t, minlength=n_pred * n_true).reshape(n_pred, n_true)


def _score(counts: Counts, matching: NDArray[np.int64]) -> SegmentationScore:
    of_truth, of_pred = counts.sum(0), counts.sum(1)
    classes = np.arange(counts.shape[1])
    hits = np.where(matching >= 0, counts[matching, classes], 0)
    union = of_truth + np.where(matching >= 0, of_pred[matching], 0) - hits
    present = of_truth > 0
    iou = np.full(len(classes), np.nan)
    iou[present] = hits[present] / union[present]
    total = int(of_truth.sum())
    return SegmentationScore(
        float(iou[present].mean()) if total else float("nan"),
        float(hits.sum() / total) if total else float("nan"),
        tuple(float(x) for x in iou),
        tuple(int(m) for m in matching),
    )


def class_scores(counts: Counts) -> SegmentationScore:
    """Scores of a prediction whose labels are the classes themselves; counts (classes, classes).

    A class that is predicted but not in the truth costs the classes it is mistaken for, and is itself left out.
    """
    if counts.shape[0] != counts.shape[1]:
        raise ValueError(f"need as many predictions as classes, got counts of shape {counts.shape}")
    return _score(counts, np.arange(len(counts)))


def miou_all_seen(counts: Counts) -> float:
    """mIoU in which a class that is predicted but not in the truth counts as 0 (mmsegmentation, torchmetrics).

    counts (classes, classes), of labels that are the classes themselves. Never above ``class_scores``' mIoU; NaN where
    no pixel was counted.
    """
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    seen = union > 0
    return float((np.diag(counts)[seen] / union[seen]).mean()) if seen.any() else float("nan")


def hungarian_scores(counts: Counts, none: int | None = None) -> SegmentationScore:
    """Scores after the one-to-one matching of clusters to classes that makes most pixels right.

    counts (clusters, classes). With fewer clusters than classes some classes get IoU 0, with more the unmatched
    clusters are misses; so is row ``none``, pixels without a prediction.
    """
    from scipy.optimize import linear_sum_assignment

    present = np.flatnonzero(counts.sum(0))
    clusters = np.flatnonzero(np.arange(len(counts)) != none)
    rows, columns = linear_sum_assignment(counts[np.ix_(clusters, present)], maximize=True)
    matching = np.full(counts.shape[1], -1, np.int64)
    matching[present[columns]] = clusters[rows]
    return _score(counts, matching)


@dataclass(frozen=True)
class MajorityScore:
    """Scores where several clusters may stand for one class. K must be told beside it: it rises with K."""

    miou: float
    accuracy: float
    iou: tuple[float, ...]
    """IoU per class, as in ``SegmentationScore``."""
    classes: tuple[int, ...]
    """Class of each cluster; -1: it had no pixel where the classes were chosen."""
    k: int
    """Clusters that have one."""


def majority_scores(counts: Counts, chosen_on: Counts | None = None, none: int | None = None) -> MajorityScore:
    """Scores after each cluster took the class that most of its pixels have (many-to-one; ties: the lower class).

    counts (clusters, classes). ``chosen_on``: counts of other photos, on which the classes are chosen, as those who
    publish such figures do with their training photos; None: the same photos. A cluster without a pixel there misses, as does row ``none``.
    """
    basis = counts if chosen_on is None else chosen_on
    if basis.shape != counts.shape:
        raise ValueError(f"counts of other photos have shape {basis.shape}, these {counts.shape}")
    classes = np.where(basis.any(1) & (np.arange(len(basis)) != none), basis.argmax(1), -1)
    together = np.zeros((counts.shape[1] + 1, counts.shape[1]), np.int64)
    np.add.at(together, classes, counts)  # -1: the last row, which stands for no class
    score = _score(together, np.arange(counts.shape[1]))
    return MajorityScore(
        score.miou, score.accuracy, score.iou, tuple(int(c) for c in classes), int((classes >= 0).sum())
    )


Regions = Literal["components", "labels"]


def regions_of(labels: NDArray[np.integer], regions: Regions) -> NDArray[np.integer]:
    """The map itself, or its 4-connected components numbered from 1 in the order of their first pixels."""
    if regions == "labels":
        return labels
    if regions != "components":
        raise ValueError(f"regions: need 'components' or 'labels', got {regions!r}")
    from skimage.measure import label

    low = int(labels.min()) - 1
    parts: NDArray[np.integer] = label(labels.astype(np.int64), background=low, connectivity=1)  # type: ignore[no-untyped-call]
    return parts


@dataclass(frozen=True)
class Overlaps:
    """The objects of a photo that have a known pixel, by rising number."""

    iou: NDArray[np.float64]
    """(objects,): with the predicted region that fits best; 0 where all that covers it is no region."""
    pixels: Counts
    """(objects,): known pixels."""
    numbers: Counts
    """(objects,): value in the map of objects."""

    def labelled(self, objects: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.integer]:
        """What another map, constant in each object, holds there: (objects,)."""
        low = int(objects.min())
        table = np.zeros(int(objects.max()) - low + 1, labels.dtype)
        table[objects - low] = labels
        found: NDArray[np.integer] = table[self.numbers - low]
        return found


def object_overlaps(
    parts: NDArray[np.integer],
    objects: NDArray[np.integer],
    known: NDArray[np.bool_] | None = None,
    none: int | None = None,
) -> Overlaps:
    """Best overlap of each object; all (H, W). ``parts`` equal to ``none`` are no region, and fit nothing."""
    table = contingency(parts, objects, known)
    regions = None if none is None else table.first_labels != none
    return Overlaps(best_iou(table, regions), table.second, table.second_labels)
