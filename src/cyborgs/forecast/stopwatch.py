"""When a few steps have been timed long enough, and what they say of an epoch."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import Final, final

import torch

from cyborgs import distributed
from cyborgs.engine.callback import Callback, Training
from cyborgs.forecast.usage import own_bytes

LEAST_STEPS: Final = 4
"""Steps of a kind that are timed at least, where the epoch has as many (half of them where one takes half a minute)."""
MOST_STEPS: Final = 24
ENOUGH_SECONDS: Final = (4.0, 10.0)
"""After which no more steps are timed: once the loader's first burst is over, and in any case."""


@dataclass(frozen=True)
class Times:
    """Steps of one kind of epoch."""

    ends: tuple[float, ...]
    """Seconds from the beginning of an epoch, start of the loader's processes included, to the end of its steps."""
    steady: float
    """Seconds of a later step."""
    logged: float
    """Further seconds of a step that is logged."""

    def epoch(self, steps: int) -> float:
        """Seconds of ``steps`` steps from an epoch's beginning on, none of them logged."""
        count = len(self.ends)
        return self.ends[steps - 1] if steps <= count else self.ends[-1] + (steps - count) * self.steady


class Enough(Exception):
    """Leaves the trainer's loop in the middle of an epoch."""


@final
class StepTimer(Callback):
    """Times the steps of an epoch and ends it when they are enough: plain ones, then one that is logged."""

    def __init__(self, most: int, burst: int, cuda: bool) -> None:
        self.most = most
        self.burst = burst
        self.cuda = cuda
        self.workers = 0
        self.ends: list[float] = []
        self._start = time.perf_counter()

    def begin(self) -> None:
        """The epoch begins now."""
        self.ends.clear()
        self._start = time.perf_counter()

    def on_step(self, trainer: Training) -> None:
        """Note the time; raises Enough at the end."""
        if self.cuda:  # what was asked of the GPU must be done, or the last step would seem to take nothing
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter() - self._start)
        self.workers = max(self.workers, sum(own_bytes(p.pid for p in multiprocessing.active_children() if p.pid)))
        if trainer.log_every == 1 or self.most == 1:
            raise Enough
        count, elapsed = len(self.ends), self.ends[-1]
        soon, late = ENOUGH_SECONDS
        settled = count >= LEAST_STEPS + self.burst and elapsed > soon
        long = count >= LEAST_STEPS and elapsed > late
        very_long = count >= LEAST_STEPS // 2 and elapsed > 5 * late
        # Processes have clocks of their own, and must take the same steps.
        if distributed.all_any(settled or long or very_long or count >= self.most - 1):
            trainer.log_every = 1

    def times(self) -> Times:
        """Of the epoch that is over."""
        if len(self.ends) == 1:
            return Times(tuple(self.ends), self.ends[0], 0.0)
        plain = self.ends[:-1]
        # At the beginning the loader fills its queue, beside the first steps.
        skipped = max(min(1, len(plain) - 1), min(1 + self.burst, len(plain) - 2))
        before = plain[skipped - 1] if skipped else 0.0
        steady = (plain[-1] - before) / (len(plain) - skipped)
        return Times(tuple(plain), steady, max(0.0, self.ends[-1] - self.ends[-2] - steady))
