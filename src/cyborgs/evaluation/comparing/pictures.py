"""Comparisons and curves as pictures."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cyborgs.errors import printable
from cyborgs.evaluation.comparing.compare import Compared, epoch_of, metric_name, short_names
from cyborgs.metrics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart."""
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
_LONGEST: Final = 28
"""Characters of a name on an axis."""


def of_comparison(compared: Compared, sentence: str) -> bytes:
    """PNG: bars with intervals for all labels; beside them, with several shares, a curve over the labels."""
    names = [_short(printable(name)) for name in short_names(compared.backbones).values()]
    curve = len(compared.shares) > 1
    figure = _figure(10.0 if curve else 6.4, 1.7 + 0.5 * max(4, len(names)))
    axes = figure.subplots(1, 2 if curve else 1, squeeze=False)[0]
    _bars(axes[0], compared, names)
    if curve:
        x = [100 * share for share in compared.shares]
        for place, backbone in enumerate(compared.backbones):
            _line(axes[1], x, [compared.value(backbone, share) for share in compared.shares], place, names[place])
        axes[1].set_xscale("log")
        axes[1].set_xticks(x, [f"{100 * share:g}%" for share in compared.shares])
        axes[1].minorticks_off()
        axes[1].set_xlabel("share of the training labels")
        axes[1].set_ylabel(f"{metric_name(compared.metric)}, %")
        axes[1].legend(frameon=False, fontsize=8)
    return _png(figure, "\n".join(textwrap.wrap(printable(sentence), 105 if curve else 68)))


def _bars(axis: Any, compared: Compared, names: Sequence[str]) -> None:
    share = compared.shares[-1]
    for place, backbone in enumerate(compared.backbones):
        own = compared.value(backbone, share)
        if math.isnan(own.value):
            continue
        spread = [[100 * max(0.0, own.value - own.low)], [100 * max(0.0, own.high - own.value)]]
        axis.barh(place, 100 * own.value, color=COLOURS[place % len(COLOURS)], height=0.6)
        axis.errorbar(100 * own.value, place, xerr=spread, color="black", capsize=4, linewidth=1.2)
        end = (100 * max(own.high, own.value), place)
        axis.annotate(f"{100 * own.value:.1f}", end, (6, 0), textcoords="offset points", va="center")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    draws = f"95% over test images{' and seeds' if len(compared.seeds) > 1 else ''}"
    axis.set_xlabel(f"{metric_name(compared.metric)}, % (bars: {draws})")
    axis.set_title(f"{share:.0%} of the labels", fontsize=10)
    axis.margins(x=0.14)
    axis.spines[["top", "right"]].set_visible(False)


def of_curve(curve: Mapping[str, Compared], title: str) -> bytes:
    """PNG: a line with its interval for each protocol, an axis each, over the epochs of the backbones."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(6.4, 1.0 + 2.4 * len(curve))
    axes = figure.subplots(len(curve), 1, squeeze=False, sharex=True)[:, 0]
    for place, ((name, found), axis) in enumerate(zip(curve.items(), axes, strict=True)):
        epochs = [epoch_of(backbone) for backbone in found.backbones]
        _line(axis, epochs, [found.value(backbone) for backbone in found.backbones], place)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_ylabel(f"{metric_name(found.metric)}, %")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("epochs of pretraining (band: 95% over test images)")
    return _png(figure, printable(title))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _line(axis: Any, x: Sequence[float], values: Sequence[Interval], place: int, label: str | None = None) -> None:
    """A line with the band of its intervals, in the colour and with the mark of a place in the list."""
    colour, mark = COLOURS[place % len(COLOURS)], MARKS[place % len(MARKS)]
    axis.plot(x, [100 * v.value for v in values], color=colour, marker=mark, label=label)
    low, high = [100 * v.low for v in values], [100 * v.high for v in values]
    axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure, title: str) -> bytes:
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else "…" + name[-_LONGEST + 1 :]
