"""All measures of one photo's label map against its annotations (docs/method.md, "Measures of masks")."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.truth import VOID
from cyborgs.data.palette import nearest
from cyborgs.metrics import boundary, partition
from cyborgs.metrics.segmentation import Overlaps, Regions, hungarian_scores, object_overlaps, regions_of
from cyborgs.ops.contingency import Contingency, contingency

MEASURES: Final[dict[str, tuple[str, str]]] = {
    "covering": ("covering", "share of the truth that the best predicted regions cover (IoU, weighted by size)"),
    "rand": ("Rand index (PRI)", "share of pixel pairs on which both agree"),
    "voi": ("variation of information", "bits; H(S|G) + H(G|S), 0 is best"),
    "split": ("H(S|G)", "bits; how much the truth's regions are cut"),
    "joined": ("H(G|S)", "bits; how much the truth's regions are joined"),
    "ari": ("adjusted Rand index", "Rand index, 0 by chance"),
    "fg_ari": ("FG-ARI", "the same on object pixels alone"),
    "nmi": ("NMI", "mutual information over the mean of both entropies"),
    "asa": ("achievable accuracy", "accuracy if each region took the truth's it shares most with; rises with regions"),
    "abo": ("average best overlap", "IoU of each object with the region that fits it best"),
    "boundary_f": ("boundary F", "of precision and recall; looser than BSDS's, which matches pixels one to one"),
    "boundary_precision": ("boundary precision", "share of predicted border pixels near a true one"),
    "boundary_recall": ("boundary recall", "share of true border pixels near a predicted one"),
    "matched_miou": ("matched mIoU", "regions of each photo matched one to one to the truth's (Hungarian)"),
    "matched_accuracy": ("matched accuracy", "share of pixels right after that matching"),
}
"""Measures of one photo: what they are called, and what they say."""
_BITS: Final = frozenset({"voi", "split", "joined"})


def is_share(measure: str) -> bool:
    """Whether 1 is best; else it is bits, and 0 is best."""
    return measure not in _BITS


@dataclass(frozen=True)
class PhotoScores:
    """What one photo gives."""

    values: dict[str, float]
    """By name, as in ``MEASURES``: means over annotators."""
    regions: int
    """Predicted labels that have a known pixel."""
    truth_regions: float
    """Regions of the truth, mean over annotators."""
    annotators: int
    """Annotations that are not void everywhere."""
    classes: Contingency | None = None
    """Predicted labels by class, where the truth knows classes."""
    overlaps: tuple[tuple[int, float], ...] = ()
    """Class and best overlap of each object, where the truth knows classes."""


@dataclass(frozen=True)
class PhotoSettings:
    """What ``photo_scores`` does."""

    measures: Collection[str] = tuple(MEASURES)
    regions: Regions = "components"
    min_pixels: int = 1
    tolerance: float = boundary.TOLERANCE
    background: tuple[int, ...] = ()
    """Classes that are no objects: not in FG-ARI, ABO and MABO."""


def photo_scores(
    pred: NDArray[np.integer],
    truths: Sequence[NDArray[np.integer]],
    classes: NDArray[np.integer] | None = None,
    settings: PhotoSettings | None = None,
    *,
    none: int | None = None,
) -> PhotoScores | None:
    """All measures of a label map (h, w), brought to the truth's size by nearest neighbour.

    Args:
        pred: whole numbers of at least 0.
        truths: a map (H, W) of regions for each annotator, -1 where void; the measures are means over them.
        classes: class of each pixel (H, W), -1 where void.
        settings: which measures, and how.
        none: label of pixels without a prediction. They are one region more for the partition measures, no region for
            best overlap, and misses where regions are matched.

    Returns:
        None where the truth is void everywhere.
    """
    settings = settings or PhotoSettings()
    known = [(truth, truth != VOID) for truth in truths]
    known = [(truth, kept) for truth, kept in known if kept.any()]
    if not known:
        return None
    pred = nearest(pred, *known[0][0].shape)
    wants = settings.measures
    parts = parts_none = None
    if "abo" in wants:
        parts, parts_none = _parts(pred, settings.regions, none)
    rows: list[dict[str, float]] = []
    counts = []
    overlaps: list[tuple[int, float]] = []
    for number, (truth, kept) in enumerate(known):
        table = contingency(pred, truth, None if kept.all() else kept)
        counts.append((len(table.first) - bool(none is not None and none in table.first_labels), len(table.second)))
        row = _partition(table, wants) | _matched(table, wants, none) | _boundary(pred, truth, kept, settings)
        if "fg_ari" in wants and classes is not None and settings.background:
            objects = kept & (classes != VOID) & ~np.isin(classes, settings.background)
            row["fg_ari"] = partition.adjusted_rand(contingency(pred, truth, objects))
        if parts is not None:
            labelled = regions_of(truth, settings.regions)
            found = object_overlaps(parts, labelled, kept, parts_none)
            of_class = None if classes is None else found.labelled(labelled, classes)
            iou, of_class = _wanted(found, of_class, settings)
            row["abo"] = float(iou.mean()) if iou.size else float("nan")
            if number == 0 and of_class is not None:
                overlaps = [(int(c), float(v)) for c, v in zip(of_class, iou, strict=True) if c != VOID]
        rows.append(row)
    values = {name: _mean([row[name] for row in rows]) for name in MEASURES if name in rows[0]}
    of_classes = None if classes is None else contingency(pred, classes, classes != VOID)
    regions, truth_regions = counts[0][0], float(np.mean([c[1] for c in counts]))
    return PhotoScores(values, regions, truth_regions, len(known), of_classes, tuple(overlaps))


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def _parts(pred: NDArray[np.integer], regions: Regions, none: int | None) -> tuple[NDArray[np.integer], int | None]:
    """Predicted regions, and the number of what is none."""
    parts = regions_of(pred, regions)
    if none is None or regions == "labels":
        return parts, none
    return np.where(pred == none, 0, parts), 0  # components are numbered from 1


def _wanted(
    found: Overlaps, of_class: NDArray[np.integer] | None, settings: PhotoSettings
) -> tuple[NDArray[np.float64], NDArray[np.integer] | None]:
    """Best overlaps of what is an object, and their classes."""
    wanted = found.pixels >= settings.min_pixels
    if of_class is None:
        return found.iou[wanted], None
    wanted &= ~np.isin(of_class, settings.background)
    return found.iou[wanted], of_class[wanted]


def _partition(table: Contingency, wants: Collection[str]) -> dict[str, float]:
    single = {
        "covering": partition.covering,
        "rand": partition.rand_index,
        "ari": partition.adjusted_rand,
        "nmi": partition.mutual_information,
        "asa": partition.achievable_accuracy,
    }
    values = {name: measure(table) for name, measure in single.items() if name in wants}
    if _BITS & {*wants}:
        split, joined = partition.conditional_entropies(table)
        bits = {"voi": split + joined, "split": split, "joined": joined}
        values |= {name: value for name, value in bits.items() if name in wants}
    return values


def _matched(table: Contingency, wants: Collection[str], none: int | None) -> dict[str, float]:
    if not {"matched_miou", "matched_accuracy"} & {*wants}:
        return {}
    counts = np.zeros((len(table.first), len(table.second)), np.int64)
    counts[table.i, table.j] = table.shared
    place = None if none is None else np.flatnonzero(table.first_labels == none)
    score = hungarian_scores(counts, int(place[0]) if place is not None and place.size else None)
    values = {"matched_miou": score.miou, "matched_accuracy": score.accuracy}
    return {name: value for name, value in values.items() if name in wants}


def _boundary(
    pred: NDArray[np.integer], truth: NDArray[np.integer], kept: NDArray[np.bool_], settings: PhotoSettings
) -> dict[str, float]:
    names = [name for name in settings.measures if name.startswith("boundary_")]
    if not names:
        return {}
    score = boundary.boundary_score(pred, truth, kept, tolerance=settings.tolerance)
    values = {"boundary_f": score.f, "boundary_precision": score.precision, "boundary_recall": score.recall}
    return {name: values[name] for name in names}
