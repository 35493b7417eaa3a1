"""metrics.jsonl, a backend beside it, and the line a person reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cyborgs.engine.backends import Backend
from cyborgs.engine.metrics_file import MetricsFile

TIMES = ("images_per_second", "seconds", "seconds_waiting", "seconds_saving")
"""Fields of metrics.jsonl that depend on the clock; all others are the same in every equal run."""


def duration(seconds: float) -> str:
    """``2d 4h``, ``3h 5m``, ``4m 10s`` or ``12s``."""
    total = int(timedelta(seconds=max(0.0, seconds)).total_seconds())
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    for place, (name, size) in enumerate(units):
        if total >= size:
            text = f"{total // size}{name}"
            if place + 1 < len(units):
                next_name, next_size = units[place + 1]
                text += f" {total % size // next_size}{next_name}"
            return text
    return "0s"


def loss_text(numbers: Mapping[str, float]) -> str:
    """``loss 3.41 (contrast 3.30, cluster 1.12)``, of a step's figures; ``loss -`` where none is known yet."""
    parts = ", ".join(f"{n.removeprefix('loss/')} {v:.3f}" for n, v in numbers.items() if n.startswith("loss/"))
    return f"loss {numbers['loss']:.3f} ({parts})" if "loss" in numbers else "loss -"


class RunLog:
    """Everything a run says: metrics to files, progress to the terminal. Silent on all processes but the first.

    Args:
        folder: the run's folder, or None for a process that says nothing.
        length: length of metrics.jsonl at the checkpoint.
        backend: takes the figures too; closed with the log.
        stream: where progress goes; a bar that moves in a terminal, a line an epoch elsewhere.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        length: int = 0,
        backend: Backend | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._metrics: MetricsFile | None = None
        self._backend = backend
        stream = stream or sys.stderr
        self._quiet = folder is None
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: Any = None
        if folder is not None:
            self._metrics = MetricsFile(folder / "metrics.jsonl", length)
            if self._console.is_terminal:
                self._bar = Progress(
                    BarColumn(bar_width=20), TextColumn("{task.description}", markup=False), console=self._console
                )
                self._bar.start()
                self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, values: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; its numbers to the backend too, but for those of health events: they are there."""
        if self._metrics is not None:
            self._metrics.write(values)
        if self._backend is not None and "step" in values and "health" not in values:
            numbers = {
                name: value
                for name, value in values.items()
                if name not in ("step", "epoch") and isinstance(value, int | float)
            }
            self._guarded(lambda backend: backend.write(numbers, values["step"]))

    def _guarded(self, action: Callable[[Backend], None]) -> None:
        """A backend is somebody else's service: its failure ends its records, not the run."""
        if self._backend is None:
            return
        try:
            action(self._backend)
        except Exception as error:  # whatever its library raises
            name, self._backend = type(self._backend).__name__, None
            self.say(f"{name} failed ({error}); the run goes on, with metrics.jsonl alone.")

    def flush(self) -> int:
        """Bring the metrics to the disk; their length in bytes."""
        return self._metrics.flush() if self._metrics is not None else 0

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(text, markup=False)

    def progress(self, text: str, done: int, total: int) -> None:
        """The line that moves, in a terminal only."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=done, total=total)

    def close(self) -> None:
        """Close files and the bar."""
        if self._bar is not None:
            self._bar.stop()
        self._guarded(lambda backend: backend.close())
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


@contextmanager
def moving(text: str, stream: TextIO | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar for work outside of a run: call what it gives with (done, total). Nothing where it is no terminal."""
    console = Console(file=stream or sys.stderr)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class Speed:
    """Images a second, over the last minute or so of work."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self._rate: float | None = None

    def update(self, images: int) -> float:
        """Note that ``images`` more are done; the smoothed rate."""
        now = time.perf_counter()
        elapsed = max(now - self._last, 1e-9)
        self._last = now
        rate = images / elapsed
        share = min(1.0, elapsed / 30.0 + 0.05)
        self._rate = rate if self._rate is None else self._rate + share * (rate - self._rate)
        return self._rate

    def skip(self) -> None:
        """Time that passed until now was no training."""
        self._last = time.perf_counter()
