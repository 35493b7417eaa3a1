from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cyborgs.report.facts import time_rows, warnings_of
from cyborgs.report.history import EVENTS, read_history
from tests.report.fakes import make_run, write_metrics


def test_columns(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    history = read_history(run / "metrics.jsonl")
    assert list(history.series["loss/cluster"].steps) == list(range(1, 11))
    assert history.series["loss/contrast"].values[-1] == 3.0
    assert set(history.series) == {
        "loss/cluster", "loss/contrast", "lr", "embed/std_online", "gradient/norm", "images_per_second"
    }  # fmt: skip
    assert (history.step, history.epoch, history.unreadable) == (60, 6, 0)
    assert history.refreshes == [{"step": 10, "epoch": 1, "cycle": 0}, {"step": 40, "epoch": 4, "cycle": 1}]
    assert list(history.masks["masks/entropy"].steps) == [10, 40]
    assert history.spans == [("warm-up", 1, 10), ("training", 11, 60)]


def test_where_the_time_went(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_metrics(run, {"step": 60, "epoch": 6, "monitor": "knn", "knn/top1": 0.5, "seconds": 4, "seconds_saving": 1})
    history = read_history(run / "metrics.jsonl")
    assert dict(history.seconds) == {
        "warm-up": 12.5, "training": 62.5, "waiting for photos": 30, "making masks": 60, "monitors": 3, "saving": 16
    }  # fmt: skip
    rows = time_rows(history)
    assert [row["name"] for row in rows] == [
        "warm-up", "training", "waiting for photos", "making masks", "monitors", "saving"
    ]  # fmt: skip
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert rows[1]["time"] == "1m 2s"
    assert history.monitors["knn/top1"].values.tolist() == [0.5]
    assert time_rows(read_history(tmp_path / "none")) == []


def test_lines_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(
        b'{"step": 1, "a": NaN, "b": true, "c": "text", "d": 1' + b"0" * 400 + b"}\n"
        b'not json\n[1, 2]\n\n{"a": 1}\n{"step": "x", "a": 1}\n\xff\xfe\n' + b"[" * 100_000 + b"\n"
        b'{"step": 3, "monitor": "knn", "epoch": 2, "failed": "gone"}\n'
        b'{"step": 3, "monitor": "neighbours", "epoch": 2}\n{"step": 4, "a"'
    )
    history = read_history(tmp_path / "m")
    assert history.unreadable == 4
    assert list(history.series) == ["a", "d"]
    assert math.isnan(history.series["a"].values[0])
    assert history.series["d"].values[0] == math.inf
    assert history.failed[0]["failed"] == "gone"
    assert history.pictured == [2]


def test_warnings_that_begin_and_end(tmp_path: Path) -> None:
    event = {"epoch": 1, "figure": "lr", "value": 0.5}
    lines = [
        {"step": 1, "health": "starved", "state": "begins", "sentence": "Slow.", **event},
        {"step": 2, "health": "collapse", "state": "begins", "sentence": "Flat.", **event},
        {"step": 3, "health": "starved", "state": "ends", "sentence": "Fast.", **event},
    ]
    (tmp_path / "m").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows, active = warnings_of(read_history(tmp_path / "m"))
    assert active == ["Flat."]
    assert [(r["step"], r["name"], r["state"], r["figure"]) for r in rows] == [
        ("1", "starved", "began", "lr = 0.5"), ("2", "collapse", "began", "lr = 0.5"), ("3", "starved", "ended", "lr = 0.5")
    ]  # fmt: skip


def test_endless_warnings_are_counted(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("".join(f'{{"step": {i}, "health": "x"}}\n' for i in range(EVENTS + 7)))
    history = read_history(tmp_path / "m")
    assert len(history.events) == EVENTS
    assert history.events_left_out == 7
    assert (history.events[0]["step"], history.events[-1]["step"]) == (0, EVENTS + 6)
