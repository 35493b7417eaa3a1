"""Curves and histograms of a run as SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.report.catalogue import title_of
from cyborgs.report.history import History, Series

# None is a colour that anything else has: they are replaced by what the style sheet says.
_INK, _FAINT, _CURVE = "#010203", "#040506", "#070809"
POINTS: Final = 240
"""Points of a curve, at most; of more, each drawn point is the mean of a stretch, its range shaded."""
LINES: Final = 24
"""Dashed lines of a curve, at most."""

LARGEST: Final = 1e30
"""Values beyond cannot be drawn, nor can NaN and infinity."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    title: str
    note: str
    """One line that explains it."""
    svg: str
    alt: str


@dataclass(frozen=True)
class Thinned:
    """A curve of few points."""

    steps: Floats
    values: Floats
    low: Floats | None = None
    """Lowest and highest value of the stretch of each point; None: each point is a logged step."""
    high: Floats | None = None


def thinned(series: Series, most: int = POINTS) -> Thinned:
    """At most ``most`` points: means over equal stretches of steps, with their ranges; NaN where nothing is finite."""
    steps, values = np.array(series.steps, np.float64), np.array(series.values, np.float64)
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], np.where(_drawable(values[order]), values[order], np.nan)
    if len(steps) <= most:
        return Thinned(steps, values)
    width = (steps[-1] - steps[0]) / most or 1.0
    bins = np.minimum(((steps - steps[0]) / width).astype(np.int64), most - 1)
    first = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
    finite = np.isfinite(values)
    count = np.add.reduceat(finite.astype(np.float64), first)
    empty = count == 0
    mean = np.add.reduceat(np.where(finite, values, 0.0), first) / np.maximum(count, 1)
    low = np.minimum.reduceat(np.where(finite, values, np.inf), first)
    high = np.maximum.reduceat(np.where(finite, values, -np.inf), first)
    mean[empty], low[empty], high[empty] = np.nan, np.nan, np.nan
    return Thinned(np.add.reduceat(steps, first) / np.diff(np.r_[first, len(steps)]), mean, low, high)


def _drawable(values: Floats) -> NDArray[np.bool_]:
    drawable: NDArray[np.bool_] = np.abs(values) < LARGEST  # false for NaN
    return drawable


def _broken(curve: Thinned) -> Thinned:
    """With NaN in the gaps: a loss that is computed every few epochs has them, and a line across would invent values."""
    apart = np.diff(curve.steps)
    if not len(apart):
        return curve
    after = np.flatnonzero(apart > 3 * max(1.0, float(np.median(apart)))) + 1
    if not len(after):
        return curve
    middle = curve.steps[after - 1] + apart[after - 1] / 2
    bounds = (None if b is None else np.insert(b, after, np.nan) for b in (curve.low, curve.high))
    return Thinned(np.insert(curve.steps, after, middle), np.insert(curve.values, after, np.nan), *bounds)


def curve(name: str, series: Series, history: History) -> Figure | None:
    """A figure over steps; grey: warm-up, dashed: masks made anew. None where no value is finite."""
    values = np.array(series.values, np.float64)
    finite = _drawable(values)
    if not finite.any():
        return None
    title, note = title_of(name)
    drawn = _broken(thinned(series))
    canvas, (axes,) = _canvas(1, 2.3)
    if drawn.low is not None:
        axes.fill_between(drawn.steps, drawn.low, drawn.high, color=_CURVE, alpha=0.25, linewidth=0)
    alone = len(drawn.steps) < 40 or _has_single_points(drawn.values)
    axes.plot(drawn.steps, drawn.values, color=_CURVE, linewidth=1.4, marker="." if alone else "")
    for phase, first, last in history.spans[:LINES]:
        if phase == "warm-up":
            axes.axvspan(first, last, color=_FAINT, alpha=0.25, linewidth=0)
    made = [float(line["step"]) for line in history.refreshes if isinstance(line["step"], int | float)]
    for step in made[:: -(-len(made) // LINES) or 1]:
        axes.axvline(step, color=_FAINT, linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1.015 * max(history.step, 1))  # room for the last point's mark
    axes.set_xlabel("step", color=_INK)
    axes.xaxis.get_major_locator().set_params(nbins=6, integer=True)
    axes.xaxis.set_major_formatter(_steps)
    svg = _svg(canvas, name)
    where = np.flatnonzero(finite)
    begin, end = where[0], where[-1]
    alt = (
        f"{title} over steps: {values[begin]:.4g} at step {series.steps[begin]:.0f}, {values[end]:.4g} at step "
        f"{series.steps[end]:.0f}; lowest {values[finite].min():.4g}, highest {values[finite].max():.4g}"
    )
    if not finite.all():
        alt += f"; {int((~finite).sum())} values are not finite, or too large to draw"
    return Figure(title, note, svg, alt)


def histogram(counts: Mapping[int, Sequence[int]]) -> Figure | None:
    """How many photos have how many regions, a row for each generation."""
    known = {g: np.array(values) for g, values in counts.items() if len(values)}
    if not known:
        return None
    canvas, rows = _canvas(len(known), 0.6 + 1.05 * len(known))
    highest = max(int(values.max()) for values in known.values())
    width = max(1, -(-highest // 40))
    edges = np.arange(0.5, highest + width + 0.5, width)
    for axes, (generation, values) in zip(rows, known.items(), strict=True):
        heights, _ = np.histogram(values, edges)
        axes.bar(edges[:-1] + width / 2, heights, width * 0.85, color=_CURVE)
        axes.set_title(f"generation {generation}", fontsize=9, color=_INK, loc="left", pad=3)
        axes.set_xlim(0, highest + 1)
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    rows[-1].set_xlabel("regions in a photo", color=_INK)
    rows[len(rows) // 2].set_ylabel("photos", color=_INK)
    parts = [f"generation {g}: {v.min()} to {v.max()}, median {np.median(v):g}" for g, v in known.items()]
    title = "Regions in a photo"
    return Figure(title, "", _svg(canvas, "regions"), f"Histogram of regions in a photo. {'; '.join(parts)}")


def _steps(value: float, position: int | None = None) -> str:
    """250, 4k, 1.5M: what fits below a small figure."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:g}"


def _has_single_points(values: Floats) -> bool:
    finite = np.r_[False, np.isfinite(values), False]
    return bool((finite[1:-1] & ~finite[:-2] & ~finite[2:]).any())


def _canvas(rows: int, height: float) -> tuple[Any, list[Any]]:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"font.size": 9}):
        canvas = Canvas(figsize=(4.2, height))
        FigureCanvasSVG(canvas)
        axes = [canvas.add_subplot(rows, 1, k + 1) for k in range(rows)]
        # Fixed margins, in inches: a layout that looks for them takes as long as the drawing.
        canvas.subplots_adjust(0.62 / 4.2, 0.5 / height, 1 - 0.08 / 4.2, 1 - 0.24 / height, hspace=0.6)
    for one in axes:
        one.ticklabel_format(axis="y", scilimits=(-3, 4), useOffset=False)
        one.tick_params(colors=_INK, labelsize=9)
        one.grid(color=_FAINT, alpha=0.35, linewidth=0.5)
        one.set_axisbelow(True)
        for side, spine in one.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_edgecolor(_INK)
    return canvas, axes


def _svg(canvas: Any, name: str) -> str:
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cyborgs", "font.size": 9}):
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The style would hold for the whole page; the metadata says nothing.
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), svg)
    svg = svg.replace(_INK, "currentColor").replace(_FAINT, "var(--faint)").replace(_CURVE, "var(--curve)")
    return _own_ids(svg, name)


def _own_ids(svg: str, name: str) -> str:
    """Ids that differ from those of the page's other figures: an inline SVG shares one name space with them."""
    # A name from a file may hold anything; two names that differ in odd characters alone keep different ids.
    prefix = "f-" + "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}-" for c in name[:80]) + "-"
    for before in ('id="', 'href="#', "url(#"):
        svg = svg.replace(before, before + prefix)
    return svg
