"""Comparisons and curves as tables, in a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cyborgs.errors import printable
from cyborgs.evaluation.comparing.compare import Compared, metric_name, short_names
from cyborgs.metrics.figures import console, table
from cyborgs.metrics.paired import span


def of_comparison(compared: Compared) -> list[list[str]]:
    """The table, its head first: shares, intervals, differences from the first backbone."""
    first = compared.backbones[0]
    names = short_names(compared.backbones)
    table = [["labels", "backbone", metric_name(compared.metric), "95%", f"{names[first]} less it", "95%", "p"]]
    for share in compared.shares:
        for backbone in compared.backbones:
            own = compared.value(backbone, share)
            line = [f"{share:.0%}" if share >= 0.01 else f"{share:.2%}", names[backbone]]
            line += ["–" if math.isnan(own.value) else f"{100 * own.value:.1f}", span(own.low, own.high)]
            if backbone == first:
                line += ["", "", ""]
            else:
                d = compared.less(first, backbone, share)
                line += [f"{100 * d.value:+.1f}", span(d.low, d.high, "+"), "–" if math.isnan(d.p) else f"{d.p:.3f}"]
            table.append([printable(cell) for cell in line])
    return table


def of_curve(curve: Mapping[str, Compared]) -> list[list[str]]:
    """The table, its head first: by epoch, which the backbones are called after, and protocol."""
    table = [["epoch", "protocol", "figure", "value", "95%"]]
    for epoch in next(iter(curve.values())).backbones:
        for name, found in curve.items():
            own = found.value(epoch)
            table.append([epoch, name, metric_name(found.metric), f"{100 * own.value:.1f}", span(own.low, own.high)])
    return table


def markdown(compared: Compared, sentence: str, facts: str, standing: str = "") -> str:
    """The table for a page, above it the sentence, and before all ``standing``: what stands against published figures."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in of_comparison(compared)]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    notes = [f"- {printable(warning)}" for warning in compared.warnings]
    first = [printable(standing), ""] if standing else []
    page = [*first, printable(sentence), "", *lines, "", printable(facts), *(["", *notes] if notes else [])]
    return "\n".join(page) + "\n"


def show(rows: Sequence[Sequence[str]], caption: str) -> None:
    """Print a table, its first two columns to the left, and its caption below."""
    head, *body = rows
    out = console()
    out.print(table(head, body, left=(0, 1)))
    out.print(printable(caption))
