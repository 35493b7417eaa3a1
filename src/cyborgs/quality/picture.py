"""quality.png: the figures with their intervals, how photos spread, and the best, middle and worst photo."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.data.colours import by_size, matched, paint, renumbered
from cyborgs.data.palette import nearest
from cyborgs.errors import printable
from cyborgs.files import write_bytes
from cyborgs.quality.over_set import SET_MEASURES
from cyborgs.quality.photo import MEASURES, is_share

if TYPE_CHECKING:
    from cyborgs.metrics.intervals import Interval
    from cyborgs.quality.measure import Quality

UInt8 = NDArray[np.uint8]
Reader = Callable[[int], NDArray[np.integer]]

_BAR, _INK = "#0072b2", "#222222"
_SIDE: Final = 320
"""Longest side of a photo in the picture, in pixels."""


def draw(
    quality: Quality,
    path: Path,
    *,
    maps: Reader,
    truths: Reader,
    photos: Callable[[int], UInt8] | None = None,
    title: str = "",
) -> None:
    """Write the picture as PNG.

    Args:
        quality: what was measured.
        path: the file.
        maps: number of a photo in the predictions -> its label map (h, w).
        truths: the same -> a map of its truth (H, W), -1 where void.
        photos: the same -> uint8 (H, W, 3); None: maps alone are shown.
        title: above all.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = {MEASURES[n][0]: v for n, v in quality.means.items() if is_share(n) and v.photos}
    rows = {SET_MEASURES[n][0]: v for n, v in quality.whole.items()} | rows
    picked = _picked(quality)
    height = 1.6 + 0.27 * max(6, len(rows)) + 2.1 * len(picked)
    with mpl.rc_context({"font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "text.parse_math": False}):
        figure = Figure(figsize=(9, height), layout="constrained")
        FigureCanvasAgg(figure)
        bars, *rest = figure.subfigures(
            1 + len(picked), 1, height_ratios=[height - 2.1 * len(picked), *[2.1] * len(picked)], squeeze=False
        )[:, 0]
        left, right = bars.subplots(1, 2, width_ratios=[3, 2])
        _bars(left, rows)
        _spread(right, quality)
        figure.suptitle(title, fontsize=11)
        for part, (what, place) in zip(rest, picked, strict=True):
            _row(part, what, quality, place, maps, truths, photos)
        buffer = io.BytesIO()
        # Names may hold characters that matplotlib's font lacks: they become boxes, not warnings.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _main_measure(quality: Quality) -> str | None:
    """What photos are ordered by."""
    known = [n for n, v in quality.means.items() if v.photos]
    return next((n for n in ("covering", *known) if n in known and is_share(n)), known[0] if known else None)


def _picked(quality: Quality) -> list[tuple[str, int]]:
    """Best, middle and worst photo."""
    name = _main_measure(quality)
    if name is None:
        return []
    values = np.array([photo.values[name] for photo in quality.photos])
    order = [int(i) for i in np.argsort(values if not is_share(name) else -values, kind="stable")]
    order = [i for i in order if not np.isnan(values[i])]
    said = {"best": order[0], "middle": order[len(order) // 2], "worst": order[-1]}
    return [(what, place) for what, place in said.items() if place not in list(said.values())[: list(said).index(what)]]


def _bars(axes: Any, rows: Mapping[str, Interval]) -> None:
    for place, value in enumerate(rows.values()):
        axes.barh(place, value.value, color=_BAR, height=0.6)
        axes.plot([value.low, value.high], [place, place], color=_INK, linewidth=1.4, marker="|", markersize=5)
        axes.text(min(1.02, max(value.value, value.high) + 0.02), place, f"{value.value:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(min([0.0, *(v.low for v in rows.values() if v.low < 0)]), 1.15)
    axes.set_title("figures and their intervals (1 is best)", fontsize=9, loc="left")
    _plain(axes)


def _spread(axes: Any, quality: Quality) -> None:
    name = _main_measure(quality)
    if name is not None:
        values = np.array([photo.values[name] for photo in quality.photos])
        values = values[~np.isnan(values)]
        top = 1.0 if is_share(name) else float(values.max()) or 1.0
        axes.hist(values, bins=np.linspace(min(0.0, float(values.min())), top, 21), color=_BAR)
        axes.set_title(f"photos by {MEASURES[name][0]}", fontsize=9, loc="left")
        axes.yaxis.get_major_locator().set_params(integer=True)
    _plain(axes)


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    axes.set_axisbelow(True)


def _row(
    part: Any,
    what: str,
    quality: Quality,
    place: int,
    maps: Reader,
    truths: Reader,
    photos: Callable[[int], UInt8] | None,
) -> None:
    number = quality.numbers[place]
    truth, pred = truths(number), maps(number)
    pred = nearest(pred, *truth.shape).astype(np.int64)
    numbers = renumbered(truth, by_size(truth))
    mine = renumbered(pred, matched(pred, numbers))
    name = _main_measure(quality)
    value = "" if name is None else f": {MEASURES[name][0]} {quality.photos[place].values[name]:.3f}"
    part.suptitle(f"{what}{value}, {printable(quality.names[place])}", fontsize=8, x=0.01, ha="left")
    shape = _small(truth.shape[0], truth.shape[1])
    image = None
    columns: dict[str, UInt8] = {}
    if photos is not None:
        read = photos(number)
        image = np.asarray(cv2.resize(read, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        columns["photo"] = image
    for title, labels in (("predicted", mine), ("truth", numbers)):
        columns[title] = paint(nearest(labels, *shape), image)
    for axes, (title, picture) in zip(part.subplots(1, len(columns)), columns.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()


def _small(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
