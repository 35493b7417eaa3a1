"""What a measurement of masks leaves behind: quality.json, a table a photo, a table a class, and lines in the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cyborgs.errors import printable
from cyborgs.files import make_folder, write_bytes
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
    return {
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
        "means": {name: _interval(value) for name, value in quality.means.items()},
        "set": {name: _interval(value) for name, value in quality.whole.items()},
        "classes": [
            {
                "class": row.number,
                "name": row.name,
                "pixels": row.pixels,
                "iou": _interval(row.iou),
                "majority_iou": _interval(row.majority_iou),
                "objects": row.objects,
                "best_overlap": _interval(row.best_overlap),
            }
            for row in quality.classes
        ],
        "left_out": list(quality.left_out),
        "versions": versions,
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(interval).items()}


def write(quality: Quality, settings: QualitySettings, about: Mapping[str, Any], out: Path) -> None:
    """``photos.csv``, ``classes.csv`` where there are classes, and ``quality.json``, which comes last."""
    make_folder(out, parents=True)
    names = list(quality.means)
    rows: list[list[object]] = [["photo", "regions", "truth_regions", "annotators", *names]]
    for name, photo in zip(quality.names, quality.photos, strict=True):
        values = (_cell(photo.values[measure]) for measure in names)
        rows.append([name, photo.regions, f"{photo.truth_regions:g}", photo.annotators, *values])
    write_bytes(out / "photos.csv", _csv(rows))
    if quality.classes:
        head: list[object] = ["class", "name", "pixels"]
        for name in ("iou", "majority_iou"):
            head += [name, f"{name}_low", f"{name}_high"]
        head += ["objects", "best_overlap", "best_overlap_low", "best_overlap_high"]
        table: list[list[object]] = [head]
        for row in quality.classes:
            line: list[object] = [row.number, row.name, row.pixels, *_cells(row.iou), *_cells(row.majority_iou)]
            table.append([*line, row.objects, *_cells(row.best_overlap)])
        write_bytes(out / "classes.csv", _csv(table))
    text = json.dumps(as_json(quality, settings, about), indent=1, allow_nan=False)
    write_bytes(out / RESULT, (text + "\n").encode("utf-8", "backslashreplace"))


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


def _cells(interval: Interval | None) -> list[str]:
    return ["", "", ""] if interval is None else [_cell(v) for v in (interval.value, interval.low, interval.high)]


def _csv(rows: list[list[object]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def tell(quality: Quality, settings: QualitySettings, stream: TextIO | None = None) -> None:
    """The tables that a person reads."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(
        file=stream or sys.stdout, highlight=False, width=None if (stream or sys.stdout).isatty() else 110
    )
    share = f"{settings.level:.0%}"
    count = f"{len(quality.names)} photos"
    if quality.skipped:
        why = ", ".join(f"{n}: {reason}" for reason, n in Counter(r for _, r in quality.skipped).items())
        count += f", {len(quality.skipped)} left out ({why})"
    console.print(Text(count))

    def table(title: str, rows: Mapping[str, Interval], meanings: Mapping[str, tuple[str, str]]) -> None:
        if not rows:
            return
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name, justify in (("measure", "left"), ("value", "right"), (share, "right"), ("what it says", "left")):
            shown.add_column(name, justify=justify, no_wrap=name in ("value", share))  # type: ignore[arg-type]
        for name, value in rows.items():
            shown.add_row(meanings[name][0], f"{value.value:.3f}", _range(value), meanings[name][1])
        console.print(shown)

    clusters = f", K = {quality.clusters}" if quality.clusters else ""
    table(f"Over all photos together{clusters}", quality.whole, SET_MEASURES)
    table("Photo by photo, mean", quality.means, MEASURES)
    if any(row.iou or row.majority_iou or row.best_overlap for row in quality.classes):
        shown = Table(title="By class", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        many = any(row.majority_iou for row in quality.classes)
        heads = [
            "class",
            "pixels",
            "IoU",
            share,
            *(["IoU, majority"] if many else []),
            "objects",
            "best overlap",
            share,
        ]
        for head in heads:
            shown.add_column(head, justify="left" if head == "class" else "right")
        every = sum(row.pixels for row in quality.classes)
        for row in quality.classes[:SHOWN]:
            shown.add_row(
                Text(printable(row.name)),
                f"{row.pixels / every:.1%}",
                *_pair(row.iou),
                *([_pair(row.majority_iou)[0]] if many else []),
                str(row.objects),
                *_pair(row.best_overlap),
            )
        console.print(shown)
        if len(quality.classes) > SHOWN:
            console.print(f"and {len(quality.classes) - SHOWN} classes more, in classes.csv")
    for sentence in quality.left_out:
        console.print(Text(sentence))


def _range(value: Interval) -> str:
    return "" if math.isnan(value.low) else f"{value.low:.3f} to {value.high:.3f}"


def _pair(value: Interval | None) -> tuple[str, str]:
    return ("–", "") if value is None else (f"{value.value:.3f}", _range(value))
