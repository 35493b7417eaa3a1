"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class Clock:
    """Seconds since the last reading, and those of them that a named activity took."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count what passes inside for ``activity``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[activity] += time.perf_counter() - start

    def read(self, *activities: str) -> dict[str, float]:
        """``seconds`` since the last reading and ``seconds_NAME`` of each activity; starts anew."""
        now = time.perf_counter()
        found = {"seconds": now - self._begun} | {f"seconds_{name}": self._spent[name] for name in activities}
        self._begun = now
        self._spent.clear()
        return {name: round(value, 4) for name, value in found.items()}
