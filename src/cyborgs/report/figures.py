"""Curves of a run as SVG that follows the page's colours."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

# Neither is a colour that anything else has: they are replaced by what the style sheet says.
_INK, _FAINT = "#010203", "#040506"
_LINE = "#3b82c4"  # readable on white and on near black


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    title: str
    svg: str
    alt: str


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; a last line that a kill left unfinished is left out. Empty without the file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def curve_names(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is drawn: the losses by name, then the learning rate."""
    keys = {key for line in metrics if "step" in line for key, value in line.items() if _number(value)}
    losses = sorted(key for key in keys if key.startswith("loss/"))
    # The total of one loss is that loss times its weight; of several it is their sum, worth a panel.
    total = ["loss"] if "loss" in keys and len(losses) != 1 else []
    return total + losses + (["lr"] if "lr" in keys else [])


def curves(metrics: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """A figure for each loss and the learning rate over steps; grey: warm-up, dashed: masks made anew."""
    return [figure for name in curve_names(metrics) if (figure := _curve(name, metrics)) is not None]


def _curve(name: str, metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    points = [(line["step"], float(line[name])) for line in metrics if _number(line.get(name)) and "step" in line]
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    title = "learning rate" if name == "lr" else "loss" if name == "loss" else f"{name.removeprefix('loss/')} loss"
    # A loss that is computed every few epochs only has gaps: a line across them would invent values.
    marker = "." if len(points) < 40 or _gaps(steps) else ""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cyborgs", "font.size": 9}):
        figure = Canvas(figsize=(4.2, 2.3), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.plot(steps, values, color=_LINE, linewidth=1.4, marker=marker, linestyle="none" if _gaps(steps) else "-")
        warm = [line["step"] for line in metrics if line.get("phase") == "warm-up" and "step" in line]
        if warm:
            axes.axvspan(min(warm), max(warm), color=_FAINT, alpha=0.25, linewidth=0)
        for line in metrics:
            if "refresh" in line and "step" in line:
                axes.axvline(line["step"], color=_FAINT, linewidth=0.8, linestyle="--")
        every = [line["step"] for line in metrics if "step" in line]
        axes.set_xlim(min(every), max(every) if max(every) > min(every) else min(every) + 1)
        axes.set_xlabel("step", color=_INK)
        axes.tick_params(colors=_INK)
        axes.grid(color=_FAINT, alpha=0.35, linewidth=0.5)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_edgecolor(_INK)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor").replace(_FAINT, "var(--faint)")
    svg = _own_ids(svg, name)
    alt = f"{title} over steps: {values[0]:.4g} at step {steps[0]}, {values[-1]:.4g} at step {steps[-1]}"
    return Figure(title, svg, alt)


def _gaps(steps: Sequence[int]) -> bool:
    apart = [b - a for a, b in pairwise(steps)]
    return bool(apart) and max(apart) > 3 * max(1, sorted(apart)[len(apart) // 2])


def _own_ids(svg: str, name: str) -> str:
    """Ids that differ from those of the page's other figures: an inline SVG shares one name space with them."""
    prefix = "".join(c if c.isalnum() else "-" for c in name) + "-"
    for before in ('id="', 'href="#', "url(#"):
        svg = svg.replace(before, before + prefix)
    return svg
