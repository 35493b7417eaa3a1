"""What a measurement of masks leaves behind: quality.json, a table a photo, a table a class, and lines in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cyborgs.errors import printable
from cyborgs.files import make_folder
from cyborgs.metrics.figures import console, plain, table, write_csv, write_json
from cyborgs.quality.over_set import SET_MEASURES
from cyborgs.quality.photo import MEASURES
from cyborgs.quality.predictions import RESULT
from cyborgs.runs.recipe_file import environment

if TYPE_CHECKING:
    from cyborgs.metrics.intervals import Interval
    from cyborgs.quality.measure import Quality, QualitySettings

FORMAT: Final = 1
SHOWN: Final = 40
"""Classes in the terminal's table, at most: all are in classes.csv."""


def as_json(quality: Quality, settings: QualitySettings, about: Mapping[str, Any]) -> dict[str, Any]:
    """All that was measured but the table of photos; NaN is null.

    ``format``; what ``about`` says (predictions, truth); ``settings``; ``photos``: measured, skipped, why and which;
    ``clusters``: K or null; ``means``, ``set``: by measure {value, low, high, photos}; ``classes``: a list; ``left_out``:
    sentences; ``versions``.
    """
    versions = environment() | {name: version(name) for name in ("scipy", "scikit-image")}
    document = {
        "format": FORMAT,
        **about,
        "settings": asdict(settings),
        "photos": {
            "measured": len(quality.names),
            "skipped": len(quality.skipped),
            "why": dict(Counter(reason for _, reason in quality.skipped)),
            "names_skipped": [printable(name) for name, _ in quality.skipped],
        },
        "clusters": quality.clusters or None,
        "means": {name: asdict(value) for name, value in quality.means.items()},
        "set": {name: asdict(value) for name, value in quality.whole.items()},
        "classes": [
            {
                "class": row.number,
                "name": row.name,
                "pixels": row.pixels,
                "iou": row.iou and asdict(row.iou),
                "majority_iou": row.majority_iou and asdict(row.majority_iou),
                "objects": row.objects,
                "best_overlap": row.best_overlap and asdict(row.best_overlap),
            }
            for row in quality.classes
        ],
        "left_out": list(quality.left_out),
        "versions": versions,
    }
    found: dict[str, Any] = plain(document)
    return found


def write(quality: Quality, settings: QualitySettings, about: Mapping[str, Any], out: Path) -> None:
    """``photos.csv``, ``classes.csv`` where there are classes, and ``quality.json``, which comes last."""
    make_folder(out, parents=True)
    names = list(quality.means)
    rows: list[list[object]] = [["photo", "regions", "truth_regions", "annotators", *names]]
    for name, photo in zip(quality.names, quality.photos, strict=True):
        values = (photo.values[measure] for measure in names)
        rows.append([name, photo.regions, f"{photo.truth_regions:g}", photo.annotators, *values])
    write_csv(out / "photos.csv", rows)
    if quality.classes:
        head: list[object] = ["class", "name", "pixels"]
        for name in ("iou", "majority_iou"):
            head += [name, f"{name}_low", f"{name}_high"]
        head += ["objects", "best_overlap", "best_overlap_low", "best_overlap_high"]
        table_of_classes: list[list[object]] = [head]
        for row in quality.classes:
            line: list[object] = [row.number, row.name, row.pixels, *_cells(row.iou), *_cells(row.majority_iou)]
            table_of_classes.append([*line, row.objects, *_cells(row.best_overlap)])
        write_csv(out / "classes.csv", table_of_classes)
    write_json(out / RESULT, as_json(quality, settings, about))


def _cells(interval: Interval | None) -> list[object]:
    return ["", "", ""] if interval is None else [interval.value, interval.low, interval.high]


def tell(quality: Quality, settings: QualitySettings, stream: TextIO | None = None) -> None:
    """The tables that a person reads."""
    out = console(stream)
    share = f"{settings.level:.0%}"
    count = f"{len(quality.names)} photos"
    if quality.skipped:
        why = ", ".join(f"{n}: {reason}" for reason, n in Counter(r for _, r in quality.skipped).items())
        count += f", {len(quality.skipped)} left out ({why})"
    out.print(count)
    clusters = f", K = {quality.clusters}" if quality.clusters else ""
    for title, rows, meanings in (
        (f"Over all photos together{clusters}", quality.whole, SET_MEASURES),
        ("Photo by photo, mean", quality.means, MEASURES),
    ):
        if rows:
            body = [[meanings[n][0], f"{v.value:.3f}", _range(v), meanings[n][1]] for n, v in rows.items()]
            head = ["measure", "value", share, "what it says"]
            out.print(table(head, body, left=(0, 3), whole=(1, 2), title=title))
    if any(row.iou or row.majority_iou or row.best_overlap for row in quality.classes):
        many = any(row.majority_iou for row in quality.classes)
        head = ["class", "pixels", "IoU", share, *(["IoU, majority"] if many else []), "objects", "best overlap", share]
        every = sum(row.pixels for row in quality.classes)
        body = [
            [
                printable(row.name),
                f"{row.pixels / every:.1%}",
                *_pair(row.iou),
                *([_pair(row.majority_iou)[0]] if many else []),
                str(row.objects),
                *_pair(row.best_overlap),
            ]
            for row in quality.classes[:SHOWN]
        ]
        out.print(table(head, body, title="By class"))
        if len(quality.classes) > SHOWN:
            out.print(f"and {len(quality.classes) - SHOWN} classes more, in classes.csv")
    for sentence in quality.left_out:
        out.print(sentence)


def _range(value: Interval) -> str:
    return "" if math.isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"


def _pair(value: Interval | None) -> tuple[str, str]:
    return ("–", "") if value is None else (f"{value.value:.3f}", _range(value))
