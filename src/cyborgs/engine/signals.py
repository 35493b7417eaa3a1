"""Asking a run to stop: by a signal or from code, seen between two steps; and asking SLURM to start it again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
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

    def ask(self, signal: int = 0) -> None:
        """Finish the step, write a checkpoint, leave; ``signal``: which one asked, 0: none."""
        self.signal = self.signal or signal
        self._asked.set()

    def __bool__(self) -> bool:
        return self._asked.is_set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals of ``STOPPING`` as requests. A later Ctrl-C stops at once (KeyboardInterrupt).

        The handler only sets a flag: what it interrupts may be anything. Outside of the main thread nothing is done.
        A signal that the process was started to ignore stays ignored. It may be entered again inside.
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

        heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, on_signal) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def process_number(environment: Mapping[str, str] = os.environ) -> int:
    """This process's number among those that torchrun or srun started, before torch knows it."""
    return int(environment.get("RANK", environment.get("SLURM_PROCID", "0")))


def requeue(environment: Mapping[str, str] = os.environ) -> str:
    """Put the SLURM job that this process belongs to back into the queue; a sentence that says how it went.

    SLURM starts the job's script anew, with the same number: its command must be one that goes on. Only the first
    process may call this.
    """
    job = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment and "SLURM_ARRAY_TASK_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    command = ["scontrol", "requeue", job]
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return f"Not queued again: {job!r} is no number of a job."
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Not queued again: {' '.join(command)} failed ({error})."
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"code {done.returncode}"
        return f"Not queued again: {' '.join(command)} failed ({said})."
    return f"Job {job} is queued again."
