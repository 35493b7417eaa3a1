"""metrics.jsonl as columns: read once, line by line, however long the run is and whether it still goes."""

from __future__ import annotations

import json
import math
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PLACE = frozenset({"step", "epoch", "cycle"})
_TIMES = ("seconds", "seconds_waiting", "seconds_saving")
EVENTS = 500
"""Health events that are kept: the first and the last half of them."""


@dataclass(frozen=True)
class Series:
    """A figure over steps, float64; NaN and infinity as they were written."""

    steps: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)


@dataclass
class History:
    """What a run wrote of itself."""

    series: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    """Figures of step lines, by name."""
    masks: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    """Figures of the lines that masks made anew write."""
    monitors: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    """Figures of monitors."""
    refreshes: list[dict[str, Any]] = field(default_factory=list)
    """``step``, ``epoch`` and ``cycle`` of each time that masks were made."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """Warnings that begin and end, as they were written."""
    failed: list[dict[str, Any]] = field(default_factory=list)
    """Monitors that could not measure."""
    pictured: list[int] = field(default_factory=list)
    """Epochs at which the neighbours' monitor measured."""
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """(phase, first logged step, last logged step), in the order of time."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Recorded time by what it went into."""
    step: int = 0
    """The last step that a line names."""
    epoch: int | None = None
    """The epoch of the last logged step."""
    unreadable: int = 0
    """Complete lines that are no JSON object."""
    events_left_out: int = 0


def number(value: object) -> float | None:
    """A JSON number as float; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def read_history(path: Path) -> History:
    """Read ``metrics.jsonl``; a last line that is still being written is left out. Empty without the file."""
    history = History()
    if not path.is_file():
        return history
    with open(path, "rb") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            if isinstance(line, dict):
                _take(history, line)
            elif text.endswith(b"\n") and text.strip():
                history.unreadable += 1
    return history


def _take(history: History, line: Mapping[str, Any]) -> None:
    step = number(line.get("step"))
    if step is None or not abs(step) < 1e15:
        return
    history.step = max(history.step, int(step))
    if "health" in line:
        history.events.append(dict(line))
        if len(history.events) > EVENTS:
            del history.events[EVENTS // 2]
            history.events_left_out += 1
        return
    seconds, waiting, saving = (number(line.get(name)) or 0.0 for name in _TIMES)
    if "refresh" in line:
        history.refreshes.append({name: line.get(name) for name in _PLACE})
        history.seconds["making masks"] += seconds
        figures = history.masks
    elif "monitor" in line:
        history.seconds["monitors"] += seconds - saving
        history.seconds["saving"] += saving
        if "failed" in line:
            history.failed.append(dict(line))
        epoch = line.get("epoch")
        if line["monitor"] == "neighbours" and isinstance(epoch, int):
            history.pictured.append(epoch)
        figures = history.monitors
    else:
        phase = str(line.get("phase", "training"))
        history.seconds[phase] += seconds - waiting - saving
        history.seconds["waiting for photos"] += waiting
        history.seconds["saving"] += saving
        if history.spans and history.spans[-1][0] == phase:
            history.spans[-1] = (phase, history.spans[-1][1], step)
        else:
            history.spans.append((phase, step, step))
        if isinstance(line.get("epoch"), int):
            history.epoch = line["epoch"]
        figures = history.series
    for name, value in line.items():
        if name not in _PLACE and name not in _TIMES and (known := number(value)) is not None:
            series = figures[name]
            series.steps.append(step)
            series.values.append(known)
