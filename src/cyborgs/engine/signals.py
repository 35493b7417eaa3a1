"""Asking a run to stop: by a signal or from code, seen between two steps."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import final

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)  # SIGUSR1: what SLURM sends before the time is up, where a job asks for it
AGAIN_SECONDS = 1.0
"""A signal this soon after the first is the same one: torchrun hands on what the terminal sent to all already."""


@final
class Stop:
    """Whether the run was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal = 0
        """The signal's number; 0: none, or asked for by code."""
        self._asked = threading.Event()
        self._at = 0.0

    def ask(self) -> None:
        """Finish the step, write a checkpoint, leave."""
        self._asked.set()

    def __bool__(self) -> bool:
        return self._asked.is_set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals of ``STOPPING`` as requests. A later Ctrl-C stops at once (KeyboardInterrupt).

        The handler only sets a flag: what it interrupts may be anything. Outside of the main thread nothing is done.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        owner = os.getpid()

        def on_signal(number: int, frame: FrameType | None) -> None:
            if os.getpid() != owner:
                return  # a loader process, forked with this handler: its parent decides
            if self and number == signal.SIGINT and time.monotonic() - self._at > AGAIN_SECONDS:
                raise KeyboardInterrupt
            if not self:
                self.signal, self._at = number, time.monotonic()
                self._asked.set()

        before = {number: signal.signal(number, on_signal) for number in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
