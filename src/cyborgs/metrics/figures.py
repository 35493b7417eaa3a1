"""Figures for people and programs, written the same way everywhere: JSON, CSV, tables in a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from cyborgs.files import write_bytes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH: Final = 110
"""Columns of a table where the output is no terminal."""


def plain(value: Any) -> Any:
    """What JSON holds, which has no NaN: a figure that is not defined is null."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """A document with its figures, those that are not defined null."""
    text = json.dumps(plain(document), indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """A table, its head first: shares with six digits, those that are not defined empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_bytes(path, buffer.getvalue().encode("utf-8", "surrogateescape"))


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6f}"


def console(stream: TextIO | None = None) -> Console:
    """Where tables and plain text are printed: as wide as the terminal, or ``WIDTH`` columns."""
    from rich.console import Console

    stream = stream or sys.stdout
    return Console(file=stream, highlight=False, markup=False, emoji=False, width=None if stream.isatty() else WIDTH)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Collection[int] = (0,),
    whole: Collection[int] = (),
    title: str = "",
) -> Table:
    """A table of plain text for ``console().print``; columns ``left`` begin at the left, ``whole`` are never wrapped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(head):
        shown.add_column(Text(name), justify="left" if place in left else "right", no_wrap=place in whole)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    return shown
