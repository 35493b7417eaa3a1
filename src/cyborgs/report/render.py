"""report.html: one page that shows what a run did, with nothing outside it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cyborgs.data.decode import decode
from cyborgs.data.images import Images
from cyborgs.data.palette import palette
from cyborgs.errors import UserError, printable
from cyborgs.files import write_bytes
from cyborgs.report import facts
from cyborgs.report.catalogue import MOST, grouped
from cyborgs.report.figures import Figure, curve, histogram
from cyborgs.report.history import History, Series, read_history
from cyborgs.report.pictures import (
    COUNTED,
    MONITOR_BYTES,
    NEIGHBOUR_BYTES,
    PHOTO_BYTES,
    Drawn,
    Row,
    UInt8,
    fitted,
    open_generations,
    region_counts,
    rows_of,
    shown_generations,
    small,
    spread,
)
from cyborgs.report.summary import health_sentence, probe_rows, summary
from cyborgs.runs.recipe import Recipe


class Crop(Protocol):
    """A region cut out of its photo, as ``evaluation.neighbours.Crop``."""

    @property
    def name(self) -> str:
        """Of the photo."""
        ...

    @property
    def image(self) -> UInt8:
        """uint8 (h, w, 3)."""
        ...

    @property
    def similarity(self) -> float | None:
        """Cosine with the query."""
        ...


class Neighbours(Protocol):
    """A region and the nearest ones, as ``evaluation.neighbours.Neighbours``."""

    @property
    def query(self) -> Crop:
        """The region."""
        ...

    @property
    def found(self) -> Sequence[Crop]:
        """The nearest first."""
        ...


_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that no page may hold, wherever they came from: a metrics file, a recipe."""

Found = tuple[Sequence[Neighbours], str]
"""Nearest regions, and a sentence that says where they come from or why there are none."""


def render(
    run_folder: Path | str,
    *,
    photos: Images | None = None,
    truth: Path | str | None = None,
    quality: Mapping[str, Any] | None = None,
    probe: Mapping[str, Any] | None = None,
    neighbours: Found | None = None,
    recipes: Mapping[str, Callable[[], Recipe]] | None = None,
    out: Path | str | None = None,
    count: int = 8,
) -> Path:
    """Write the page of a run, finished or going on; the path of the page.

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
        neighbours: nearest regions (``evaluation.of_run.neighbours_of_run``); None: no such section.
        recipes: by name: what the run's recipe is compared with.
        out: the page; ``report.html`` in the run's folder by default.
        count: photos that are shown.
    """
    run = Path(run_folder)
    target = Path(out) if out is not None else run / "report.html"
    history = read_history(run / "metrics.jsonl")
    recipe, photo_count = facts.read_recipe(run), facts.photos_of(run) or (None if photos is None else len(photos))
    state = facts.state_of(run, recipe, photo_count, history)
    overlaps = {int(g): values for g, values in ((quality or {}).get("overlaps") or {}).items()}
    stores = open_generations(run, shown_generations(run))
    truths = None if truth is None else Path(truth)
    rows = (
        [] if photos is None else fitted(rows_of(stores, photos, truths, overlaps=overlaps, count=count), PHOTO_BYTES)
    )
    counts = region_counts(stores)
    many = any(len(store) > COUNTED for store in stores.values())
    for store in stores.values():
        store.close()
    epochs = {line["cycle"]: line["epoch"] for line in history.refreshes}
    skipped = facts.skipped_files(run)
    events, _ = facts.warnings_of(history)
    environment = Environment(
        loader=PackageLoader("cyborgs.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["share"] = _share
    names = list((quality or {}).get("classes") or (probe or {}).get("classes") or [])
    page = environment.get_template("template.html").render(
        title=printable(run.resolve().name),
        state=state,
        health=health_sentence(history),
        summary=summary(quality, probe, history),
        events=events[: facts.SHOWN],
        events_left_out=max(0, len(events) - facts.SHOWN) + history.events_left_out,
        watched=facts.watched(history),
        photos=photo_count,
        skipped=skipped,
        rows=rows,
        columns=max((len(r.pictures) for r in rows), default=1),
        generations=[{"number": g, "epoch": epochs.get(g)} for g in stores],
        legend=[{"name": n, "colour": f"#{bytes(c).hex()}"} for n, c in zip(names, palette(), strict=False)],
        has_truth=any(p.title == "ground truth" for r in rows for p in r.pictures),
        overlaps=overlaps,
        histogram=_figure(histogram(counts)),
        counts=[_spread_of(g, values, epochs.get(g)) for g, values in counts.items() if values],
        counted=COUNTED if many else 0,
        neighbours=None if neighbours is None else fitted([_neighbour_row(n) for n in neighbours[0]], NEIGHBOUR_BYTES),
        neighbours_said="" if neighbours is None else neighbours[1],
        monitored=fitted(_monitor_rows(run, history), MONITOR_BYTES),
        failed=[{"epoch": facts.short(f.get("epoch")), "why": facts.short(f["failed"])} for f in history.failed][:10],
        groups=_groups(history),
        unreadable=history.unreadable,
        quality=quality,
        probe=None if probe is None else {**probe, "rows": probe_rows(probe)},
        times=facts.time_rows(history),
        recipe_name=recipe.name if isinstance(recipe, Recipe) else "",
        recipe_trouble=recipe if isinstance(recipe, str) else "",
        differences=facts.recipe_differences(recipe, recipes or {}, photo_count)
        if isinstance(recipe, Recipe)
        else None,
        environment=facts.environment_of(run),
        recipe_text=_text(run / "recipe.yaml"),
    )
    write_bytes(target, _ODD.sub(lambda odd: f"\\x{ord(odd.group()):02x}", page).encode("utf-8", "backslashreplace"))
    return target


def _share(value: object) -> str:
    """Three decimals, or a dash for what was not measured."""
    return f"{value:.3f}" if isinstance(value, int | float) and not math.isnan(value) else "–"


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace")[:50_000] if path.is_file() else None


def _figure(figure: Figure | None) -> dict[str, Any] | None:
    # Figures are made by matplotlib, which escapes what it draws; nothing else enters the page unescaped.
    return None if figure is None else {**vars(figure), "svg": Markup(figure.svg)}


def _groups(history: History) -> list[dict[str, Any]]:
    """The curves by group. The total of one loss is that loss times its weight; of several it is their sum."""
    losses = [name for name in history.series if name.startswith("loss/")]
    kinds: dict[str, Series] = {**history.series, **history.masks, **history.monitors}
    if len(losses) == 1:
        kinds.pop("loss", None)
    groups = []
    room = MOST
    for group, names in grouped(kinds, history.monitors):
        drawn = [f for name in names[:room] if (f := _figure(curve(name, kinds[name], history))) is not None]
        room -= len(drawn)
        if drawn:
            groups.append({"name": group, "figures": drawn})
    return groups


def _spread_of(generation: int, values: Sequence[int], epoch: object) -> dict[str, Any]:
    return {
        "number": generation,
        "epoch": epoch,
        "photos": len(values),
        "fewest": min(values),
        "median": f"{np.median(values):g}",
        "most": max(values),
    }


def _neighbour_row(row: Neighbours) -> Row:
    name = printable(row.query.name)
    drawn = [Drawn("the region", f"the region that is compared, outlined, in {name}", row.query.image)]
    for place, one in enumerate(row.found, 1):
        other, cosine = printable(one.name), one.similarity if one.similarity is not None else math.nan
        drawn.append(
            Drawn(f"{cosine:.2f}", f"nearest region {place}, outlined, in {other}: cosine {cosine:.2f}", one.image)
        )
    return Row(name, tuple(drawn))


def _monitor_rows(run: Path, history: History, most: int = 6) -> list[Row]:
    """The monitors' pictures of some epochs, first and last among them."""
    epochs = sorted(set(history.pictured))
    drawn = []
    for epoch in (epochs[i] for i in spread(len(epochs), most)):
        folder = run / "monitors" / f"epoch-{epoch:04d}"
        path = folder / "neighbours.jpg"
        try:
            image = small(decode(path.read_bytes(), path.name), 620)
            said = json.loads((folder / "neighbours.json").read_text(encoding="utf-8"))["rows"]
            parts = [f"{r['photo']}: {', '.join(n['photo'] for n in r['neighbours'])}" for r in said]
        except (OSError, UserError, ValueError, KeyError, TypeError):
            continue  # a run that goes on may be about to write it
        when = "before training" if epoch == 0 else f"after {epoch} epoch{'' if epoch == 1 else 's'}"
        alt = facts.short(f"cells of photos and their nearest ones in other photos, {when}. {'; '.join(parts)}")
        drawn.append(Row(when, (Drawn(when, alt, image),)))
    return drawn
