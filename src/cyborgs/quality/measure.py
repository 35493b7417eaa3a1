"""How good label maps are, measured against people's annotations: photo by photo, and over the set where ids allow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.errors import UserError
from cyborgs.machine.cores import usable_cores
from cyborgs.metrics.boundary import TOLERANCE
from cyborgs.metrics.intervals import DRAWS, Interval, mean_interval
from cyborgs.metrics.segmentation import Regions
from cyborgs.quality.over_set import SET_MEASURES, ClassRow, set_scores
from cyborgs.quality.photo import MEASURES, PhotoScores, PhotoSettings, photo_scores

if TYPE_CHECKING:
    from cyborgs.data.annotations.truth import Truth
    from cyborgs.quality.predictions import Predictions

Progress = Callable[[int, int], None]

NO_CLASSES: Final = frozenset({"bsds"})
"""Kinds of annotations that name no classes."""


@dataclass(frozen=True)
class QualitySettings:
    """What is measured, and how."""

    measures: tuple[str, ...] = ()
    """Names of ``MEASURES`` and ``SET_MEASURES``; empty: all that can be."""
    against: str = "regions"
    """``regions``: objects and stuff one by one; ``classes``: all of a class is one region."""
    regions: Regions = "components"
    """What counts as a region and as an object in best overlap: connected components, or all pixels of a label."""
    min_pixels: int = 1
    """Smaller objects are left out of best overlap."""
    tolerance: float = TOLERANCE
    """How far a border's hit may lie, as a share of the diagonal; at least 1 pixel."""
    background: tuple[str, ...] = ("background",)
    """Classes, by name or number, that are no objects: left out of FG-ARI and best overlap."""
    draws: int = DRAWS
    """Of the bootstrap over photos."""
    level: float = 0.95
    """Share of the draws that an interval holds."""
    seed: int = 0
    """Of the draws."""
    allow_missing: bool = False
    """Photos without a map or without an annotation are left out and counted, no error."""

    def __post_init__(self) -> None:
        known = {**MEASURES, **SET_MEASURES}
        for name in self.measures:
            if name not in known:
                raise UserError(f"measures: there is no {name!r}; there are {', '.join(known)}.")
        if self.against not in ("regions", "classes"):
            raise UserError(f"against: need regions or classes, got {self.against!r}.")
        if self.min_pixels < 1:
            raise UserError(f"min_pixels: need at least 1, got {self.min_pixels}.")
        if not 0 <= self.tolerance < 1:
            raise UserError(f"tolerance: need a share of the diagonal, 0 to 1, got {self.tolerance}.")
        if self.draws < 1 or not 0 < self.level < 1:
            raise UserError(f"need at least 1 draw and a level between 0 and 1, got {self.draws} and {self.level}.")


@dataclass(frozen=True)
class Quality:
    """What was measured."""

    names: tuple[str, ...]
    """Photos that count."""
    numbers: tuple[int, ...]
    """Their numbers in the predictions."""
    photos: tuple[PhotoScores, ...]
    """What each of them gave."""
    means: dict[str, Interval]
    """Means over photos, by measure."""
    whole: dict[str, Interval]
    """Measures of the whole set."""
    classes: tuple[ClassRow, ...]
    clusters: int
    """K: predicted labels, over all photos; 0 where they mean nothing beyond one."""
    skipped: tuple[tuple[str, str], ...]
    """Photos that do not count, and why."""
    left_out: tuple[str, ...]
    """Sentences: what was not measured, and why."""


def read_class_names(path: str | Path) -> list[str]:
    """A name a line, class 0 first. UserError where the file cannot be read or holds none."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of class names ({error}).") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise UserError(f"{path}: holds no class name. Write one a line, class 0 first.")
    return names


def measure(
    predictions: Predictions,
    truth: Truth,
    settings: QualitySettings | None = None,
    *,
    class_names: Sequence[str] = (),
    workers: int = 0,
    progress: Progress | None = None,
) -> Quality:
    """Measure label maps, a photo at a time in ``workers`` threads (0: as many as cores).

    Raises:
        UserError: a map that does not fit, is missing or is no label map, names the photo; nothing to measure.
    """
    settings = settings or QualitySettings()
    names = list(class_names or truth.class_names)
    absent = _absent(predictions, truth, settings.allow_missing)
    todo = [i for i in range(len(predictions.names)) if i not in absent]
    has_classes = truth.kind not in NO_CLASSES
    if settings.against == "classes" and not has_classes:
        raise UserError(f"against: {truth.kind} annotations name no classes; leave it at regions.")
    wanted = settings.measures or (*MEASURES, *SET_MEASURES)
    by_class = has_classes and (settings.against == "classes" or bool({"fg_ari", "abo", *SET_MEASURES} & {*wanted}))
    background = _background(settings.background, names)
    of_photo = PhotoSettings(
        {*wanted} | ({"abo"} if "mabo" in wanted else set()),
        settings.regions,
        settings.min_pixels,
        settings.tolerance,
        background,
    )

    def one(i: int) -> PhotoScores | None:
        classes = truth.classes(i) if by_class else None
        maps = [classes] if classes is not None and settings.against == "classes" else truth.annotators(i)
        pred = predictions.read(i)
        _check(pred, predictions.names[i], predictions.size and predictions.size(i), maps[0].shape)
        return photo_scores(pred, maps, classes, of_photo, none=predictions.void)

    scores: list[PhotoScores | None] = []
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        for found in pool.map(one, todo):
            scores.append(found)
            if progress is not None:
                progress(len(scores), len(todo))
    skipped = dict(absent) | {i: "all of its truth is void" for i, s in zip(todo, scores, strict=True) if s is None}
    numbers = [i for i, s in zip(todo, scores, strict=True) if s is not None]
    photos = [s for s in scores if s is not None]
    if not photos:
        reasons = "; ".join(f"{count} photos: {why}" for why, count in Counter(skipped.values()).items())
        raise UserError(f"there is nothing to measure. {reasons or 'No photo has a map.'}")
    bootstrap: dict[str, Any] = {"draws": settings.draws, "level": settings.level, "seed": settings.seed}
    means = {
        name: mean_interval(np.array([p.values[name] for p in photos]), **bootstrap)
        for name in MEASURES
        if name in wanted and name in photos[0].values
    }
    whole, rows, clusters = (
        set_scores(photos, names, wanted, bootstrap, same_ids=predictions.ids == "dataset", none=predictions.void)
        if by_class
        else ({}, (), 0)
    )
    return Quality(
        tuple(predictions.names[i] for i in numbers),
        tuple(numbers),
        tuple(photos),
        means,
        whole,
        rows,
        clusters,
        tuple((predictions.names[i], skipped[i]) for i in sorted(skipped)),
        _left_out(predictions, truth, wanted, bool(background)),
    )


def _absent(predictions: Predictions, truth: Truth, allowed: bool) -> dict[int, str]:
    """Photos without a pair, and what they lack; UserError where that is not allowed."""
    absent: dict[int, str] = {}
    for numbers, what in ((predictions.missing, "has no label map"), (truth.missing, "has no annotation")):
        for i in numbers:
            absent.setdefault(int(i), what)
    if absent and not allowed:
        first = min(absent)
        more = f", nor have {len(absent) - 1} more their pair" if len(absent) > 1 else ""
        raise UserError(
            f"{predictions.names[first]}: {absent[first]}{more} (of {len(predictions.names)} photos). "
            "Complete them, or leave such photos out with --allow-missing."
        )
    return absent


def _check(pred: NDArray[Any], name: str, size: tuple[int, int] | None, truth: tuple[int, ...]) -> None:
    """UserError where a map is no label map, or lies over a picture of another shape than the truth's."""
    if pred.ndim != 2 or not np.issubdtype(pred.dtype, np.integer) or not pred.size:
        raise UserError(f"{name}: a label map has one whole number a pixel, this one is {pred.dtype} {pred.shape}.")
    if int(pred.min()) < 0:
        raise UserError(f"{name}: labels must be at least 0, this map holds {int(pred.min())}.")
    height, width = size or (pred.shape[0], pred.shape[1])
    # Sizes are whole, whichever way they were rounded.
    if abs(height * truth[1] - width * truth[0]) > max(truth):
        what = "the photo" if size else "the label map"
        raise UserError(
            f"{name}: {what} is {height} x {width} (height x width), its truth {truth[0]} x {truth[1]}: they are not of "
            "one shape. Is it the truth of another photo, or turned?"
        )


def _background(wanted: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    found = []
    for name in wanted:
        if name in names:
            found.append(names.index(name))
        elif name.isdecimal():
            found.append(int(name))
        elif name != "background":
            raise UserError(f"background: there is no class {name!r}; there are {', '.join(names) or 'no names'}.")
    return tuple(found)


def _left_out(predictions: Predictions, truth: Truth, wanted: Sequence[str], background: bool) -> tuple[str, ...]:
    said = []
    of_set = any(name in wanted for name in SET_MEASURES if name != "mabo")
    if truth.kind in NO_CLASSES:
        if of_set:
            said.append(f"Nothing by class: {truth.kind} annotations name none.")
    elif of_set and predictions.ids != "dataset":
        because = {
            "group": "labels mean something inside a group of photos alone",
            "photo": "labels mean something inside one photo alone",
            "unknown": "nothing says that labels mean the same in all photos (--same-ids says it)",
        }[predictions.ids]
        said.append(f"No matching of clusters to classes over all photos: {because}.")
    if "fg_ari" in wanted and not background and truth.kind not in NO_CLASSES:
        said.append("No FG-ARI: no class is named background (--background names some).")
    return tuple(said)
