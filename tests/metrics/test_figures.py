"""What is written of figures: null and empty cells for what is not defined, names as they are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from cyborgs.metrics.figures import console, table, write_csv, write_json


def test_json_knows_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": (0.5, float("nan")), "b": {"c": float("inf"), "d": "x\ud800"}, "e": True})
    found = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: 1 / 0)
    assert found == {"a": [0.5, None], "b": {"c": None, "d": "x\ud800"}, "e": True}


def test_cells_of_a_table(tmp_path: Path) -> None:
    rows = [["photo", "n", "iou"], ["a,b\udcff.png", 3, 1 / 3], ["c", 0, float("nan")], ["d", 1, np.float64(1)]]
    write_csv(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_bytes() == b'photo,n,iou\n"a,b\xff.png",3,0.333333\nc,0,\nd,1,1.000000\n'


def test_names_are_no_markup() -> None:
    stream = io.StringIO()
    out = console(stream)
    out.print(table(["[b]who[/b]", ":smile:"], [["[red]a", ":dog:"]], title="T"))
    out.print("[bold] :cat:")
    text = stream.getvalue()
    for part in ("[b]who[/b]", ":smile:", "[red]a", ":dog:", "[bold] :cat:"):
        assert part in text, part
    assert out.width == 110
