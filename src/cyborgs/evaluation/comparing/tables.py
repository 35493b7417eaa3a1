"""Comparisons and curves as tables, in a terminal and on a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from cyborgs.errors import printable
from cyborgs.evaluation.comparing.compare import Compared, epoch_of, metric_name, short_names
from cyborgs.metrics.figures import console, table
from cyborgs.metrics.paired import span

UNBOUNDED: Final = ("alignment", "uniformity", "effective_rank")
"""Figures that are no shares."""


def of_comparison(compared: Compared) -> list[list[str]]:
    """The table, its head first: shares, intervals, differences from the first backbone."""
    first = compared.backbones[0]
    names = short_names(compared.backbones)
    rows = [["labels", "backbone", metric_name(compared.metric), "95%", f"{names[first]} less it", "95%", "p"]]
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
            rows.append([printable(cell) for cell in line])
    return rows


def of_curve(curve: Mapping[str, Compared]) -> list[list[str]]:
    """The table, its head first: by epoch of the backbones, and protocol."""
    rows = [["epoch", "protocol", "figure", "value", "95%"]]
    for backbone in next(iter(curve.values())).backbones:
        for name, found in curve.items():
            own, figure = found.value(backbone), metric_name(found.metric)
            row = [str(epoch_of(backbone)), name, figure, f"{100 * own.value:.1f}", span(own.low, own.high)]
            rows.append(row)
    return rows


def markdown(compared: Compared, sentence: str, facts: str, standing: str = "") -> str:
    """The table for a page, above it the sentence, and before all ``standing``: what stands against published figures."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in of_comparison(compared)]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    notes = [f"- {printable(warning)}" for warning in compared.warnings]
    first = [printable(standing), ""] if standing else []
    page = [*first, printable(sentence), "", *lines, "", printable(facts), *(["", *notes] if notes else [])]
    return "\n".join(page) + "\n"


def of_evaluation(compared: Compared) -> list[list[str]]:
    """The table, its head first: all figures of each backbone, with the main figure's interval; one seed, one share."""
    (share,), (seed,) = compared.shares, compared.seeds
    cells = {who: compared.cells[who, share, seed] for who in compared.backbones}
    rows = [["figure", *(title for who in cells for title in (printable(who), "95%"))]]
    for figure in next(iter(cells.values())).figures:
        row = [metric_name(figure)]
        for who, cell in cells.items():
            value, own = cell.figures[figure], compared.value(who, share)
            row.append("–" if math.isnan(value) else f"{value:.3f}" if figure in UNBOUNDED else f"{100 * value:.1f}")
            row.append(span(own.low, own.high) if figure == cell.metric else "")
        rows.append(row)
    return rows


def show(rows: Sequence[Sequence[str]], *below: str, left: int = 2) -> None:
    """Print a table, its first ``left`` columns to the left, and lines below it."""
    head, *body = rows
    out = console()
    out.print(table(head, body, left=range(left)))
    for line in below:
        out.print(printable(line))
