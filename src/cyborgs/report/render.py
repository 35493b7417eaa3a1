"""report.html: one page that shows what a run did, with nothing outside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cyborgs.data.palette import palette
from cyborgs.report.figures import curves, read_metrics
from cyborgs.report.pictures import Photos, rows_of, shown_generations
from cyborgs.report.summary import probe_rows, summary


def render(
    run_folder: Path | str,
    *,
    photos: Photos | None = None,
    truth: Path | str | None = None,
    quality: Mapping[str, Any] | None = None,
    probe: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    count: int = 8,
) -> Path:
    """Write the page of a run; the path of the page.

    Args:
        run_folder: what ``pretrain`` wrote. Missing parts are left out.
        photos: the run's photos in the order of its ``images.csv`` (``data.images.Images``); None: no pictures.
        truth: folder with the truth of photo ``a/b.jpg`` as ``a/b.png``, where there is any.
        quality: the masks' quality, ``{"rows": [{"name", "epoch"?, "miou"?, "accuracy"?, "best_overlap"?,
            "baseline"?}], "classes"?: names, "k"?, "layers"?, "scenes"?, "regions"?, "overlaps"?: {generation: best overlap
            of each photo, by its number}}``: rows in the order of time,
            baselines (such as a 5 x 5 grid) marked so; shares from 0 to 1, None or absent where not measured.
        probe: the linear probe, ``{"rows": [{"name", "layers", "seed", "miou", "accuracy", "iou"?, "baseline"?}],
            "classes"?: names, "train"?, "val"?}``.
        out: the page; ``report.html`` in the run's folder by default.
        count: photos that are shown.
    """
    run = Path(run_folder)
    target = Path(out) if out is not None else run / "report.html"
    metrics = read_metrics(run / "metrics.jsonl")
    overlaps = {int(g): values for g, values in ((quality or {}).get("overlaps") or {}).items()}
    generations = shown_generations(run) if photos is not None else []
    rows = (
        []
        if photos is None
        else rows_of(
            run, photos, None if truth is None else Path(truth), count=count, generations=generations, overlaps=overlaps
        )
    )
    environment = Environment(
        loader=PackageLoader("cyborgs.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["share"] = _share
    # Curves are made by matplotlib, which escapes what it draws; nothing else enters the page unescaped.
    figures = [{"title": f.title, "alt": f.alt, "svg": Markup(f.svg)} for f in curves(metrics)]
    names = list((quality or {}).get("classes") or (probe or {}).get("classes") or [])
    page = environment.get_template("template.html").render(
        title=_printable(run.resolve().name),
        summary=summary(quality, probe, metrics),
        photos=None if photos is None else len(photos),
        skipped=_skipped(run / "skipped.csv"),
        columns=max((len(r.pictures) for r in rows), default=1),
        rows=[{"name": _printable(r.name), "pictures": r.pictures} for r in rows],
        generations=_generations(generations, metrics),
        legend=[{"name": n, "colour": f"#{bytes(c).hex()}"} for n, c in zip(names, palette(), strict=False)],
        has_truth=any(p.title == "ground truth" for r in rows for p in r.pictures),
        figures=figures,
        overlaps=overlaps,
        quality=quality,
        probe=None if not probe else {**probe, "rows": probe_rows(probe)},
        recipe=_text(run / "recipe.yaml"),
    )
    # Written aside and renamed, so that a page under its own name is always whole.
    aside = target.with_name(target.name + ".partial")
    aside.write_text(_printable(page), encoding="utf-8")
    aside.replace(target)
    return target


def _share(value: object) -> str:
    """Three decimals, or a dash for what was not measured."""
    return f"{value:.3f}" if isinstance(value, int | float) and not math.isnan(value) else "–"


def _printable(text: str) -> str:
    """A name that is not valid UTF-8, with its odd bytes as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _skipped(path: Path) -> list[dict[str, str]] | None:
    """Name and reason of each skipped photo; None where the run does not say."""
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        lines = list(csv.reader(file))
    return [{"name": _printable(line[0]), "reason": _printable(line[1])} for line in lines[1:] if len(line) >= 2]


def _generations(numbers: Sequence[int], metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Number of each shown generation, and the epoch at whose beginning it was made (None: not known)."""
    epochs = {line.get("cycle"): line.get("epoch") for line in metrics if "refresh" in line}
    return [{"number": n, "epoch": epochs.get(n)} for n in numbers]
