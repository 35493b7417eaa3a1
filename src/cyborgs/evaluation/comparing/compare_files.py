"""A comparison as a table, a picture and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cyborgs.errors import printable
from cyborgs.evaluation.comparing.cells import chosen, plain
from cyborgs.evaluation.comparing.compare import Compared, metric_name
from cyborgs.evaluation.protocols.catalogue import Settings
from cyborgs.files import make_folder, write_bytes
from cyborgs.metrics.paired import span

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")
"""Okabe and Ito's, which colour-blind readers tell apart."""
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without their folders, where those tell them apart."""
    short = {name: name.rstrip("/").rpartition("/")[2] or name for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def rows(compared: Compared) -> list[list[str]]:
    """The table, its head first: shares, intervals, differences from the first backbone."""
    what = metric_name(compared.metric)
    first = compared.backbones[0]
    names = short_names(compared.backbones)
    head = ["labels", "backbone", what, "95%", f"{names[first]} less it", "95%", "p"]
    table = [head]
    for share in compared.shares:
        for backbone in compared.backbones:
            own = compared.value(backbone, share)
            line = [f"{share:.0%}" if share >= 0.01 else f"{share:.2%}", names[backbone], _percent(own.value)]
            line.append(span(own.low, own.high))
            if backbone == first:
                line += ["", "", ""]
            else:
                d = compared.less(first, backbone, share)
                line += [f"{100 * d.value:+.1f}", span(d.low, d.high, "+"), "–" if math.isnan(d.p) else f"{d.p:.3f}"]
            table.append([printable(cell) for cell in line])
    return table


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def markdown(compared: Compared, sentence: str, facts: str, standing: str = "") -> str:
    """The table for a page, above it the sentence, and before all ``standing``: what stands against published figures."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows(compared)]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    notes = [f"- {printable(w)}" for w in compared.warnings]
    first = [printable(standing), ""] if standing else []
    return (
        "\n".join([*first, printable(sentence), "", *lines, "", printable(facts), *(["", *notes] if notes else [])])
        + "\n"
    )


def as_json(compared: Compared, sentence: str, settings: Settings, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the draws."""
    first = compared.backbones[0]
    found: list[dict[str, Any]] = []
    for share in compared.shares:
        for backbone in compared.backbones:
            own = compared.value(backbone, share)
            line: dict[str, Any] = {
                "backbone": backbone,
                "share": share,
                "value": own.value,
                "low": own.low,
                "high": own.high,
                "test_images": own.photos,
                "seeds": [
                    {
                        "seed": s,
                        "value": c.value,
                        "figures": dict(c.figures),
                        "settings_used": chosen(c, settings),
                        "seconds": round(c.seconds, 3),
                    }
                    for s in compared.seeds
                    for c in (compared.cells[backbone, share, s],)
                ],
            }
            if backbone != first:
                d = compared.less(first, backbone, share)
                line["first_less_it"] = {"value": d.value, "low": d.low, "high": d.high, "p": d.p}
            found.append(line)
    document = {
        "sentence": sentence,
        "protocol": compared.protocol,
        "metric": compared.metric,
        "counts": dict(compared.counts),
        "warnings": list(compared.warnings),
        **about,
        "rows": found,
    }
    return document


def write(
    compared: Compared, sentence: str, settings: Settings, about: Mapping[str, Any], facts: str, out: Path
) -> None:
    """``compare.json``, ``compare.md`` and ``compare.png`` in ``out``."""
    make_folder(out, parents=True)
    document = plain(as_json(compared, sentence, settings, about))
    text = json.dumps(document, indent=1, allow_nan=False) + "\n"
    write_bytes(out / "compare.json", text.encode("utf-8", "backslashreplace"))
    write_bytes(
        out / "compare.md",
        markdown(compared, sentence, facts, about.get("standing", "")).encode("utf-8", "backslashreplace"),
    )
    write_bytes(out / "compare.png", picture(compared, sentence))


def picture(compared: Compared, sentence: str) -> bytes:
    """PNG: bars with intervals for all labels; beside them, with several shares, a curve over the labels."""
    import io
    import textwrap

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [printable(name) for name in short_names(compared.backbones).values()]
    curve = len(compared.shares) > 1
    figure = Figure(figsize=(10.0 if curve else 6.4, 1.7 + 0.5 * max(4, len(names))), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if curve else 1, squeeze=False)[0]
    what = metric_name(compared.metric)
    share = compared.shares[-1]
    for place, backbone in enumerate(compared.backbones):
        own = compared.value(backbone, share)
        if math.isnan(own.value):
            continue
        colour = COLOURS[place % len(COLOURS)]
        spread = [[100 * max(0.0, own.value - own.low)], [100 * max(0.0, own.high - own.value)]]
        axes[0].barh(place, 100 * own.value, color=colour, height=0.6)
        axes[0].errorbar(100 * own.value, place, xerr=spread, color="black", capsize=4, linewidth=1.2)
        axes[0].annotate(
            f"{100 * own.value:.1f}",
            (100 * max(own.high, own.value), place),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    axes[0].set_yticks(range(len(names)), [_short(n) for n in names])
    axes[0].invert_yaxis()
    axes[0].set_xlabel(f"{what}, % (bars: 95% over test images{' and seeds' if len(compared.seeds) > 1 else ''})")
    axes[0].set_title(f"{share:.0%} of the labels", fontsize=10)
    axes[0].margins(x=0.14)
    axes[0].spines[["top", "right"]].set_visible(False)
    if curve:
        for place, backbone in enumerate(compared.backbones):
            own_shares = [compared.value(backbone, s) for s in compared.shares]
            x = [100 * s for s in compared.shares]
            colour = COLOURS[place % len(COLOURS)]
            axes[1].plot(
                x,
                [100 * v.value for v in own_shares],
                color=colour,
                marker=MARKS[place % len(MARKS)],
                label=_short(names[place]),
            )
            low, high = [100 * v.low for v in own_shares], [100 * v.high for v in own_shares]
            axes[1].fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[1].set_xscale("log")
        axes[1].set_xticks([100 * s for s in compared.shares], [f"{100 * s:g}%" for s in compared.shares])
        axes[1].minorticks_off()
        axes[1].set_xlabel("share of the training labels")
        axes[1].set_ylabel(f"{what}, %")
        axes[1].legend(frameon=False, fontsize=8)
        axes[1].spines[["top", "right"]].set_visible(False)
    width = 105 if curve else 68
    figure.suptitle("\n".join(textwrap.wrap(printable(sentence), width)), fontsize=10, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _short(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else "…" + name[-longest + 1 :]
