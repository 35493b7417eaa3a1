"""Room for what loader processes hand to the main process."""

from __future__ import annotations

import os
from pathlib import Path

from cyborgs.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
"""Where workers put pixels for the main process (Linux)."""


class LoaderError(UserError):
    """The system has too little of what loader processes need: files or shared memory."""


def megabytes(count: int) -> str:
    """``12.3 MB``."""
    return f"{count / 1e6:.1f} MB"


def free_shared_memory() -> int | None:
    """Bytes free for this user in shared memory; None where there is no such folder."""
    if not SHARED_MEMORY.is_dir():
        return None
    state = os.statvfs(SHARED_MEMORY)
    return state.f_bavail * state.f_frsize


def shared_memory_advice(needed: int) -> str:
    """Figures and remedies."""
    free = free_shared_memory()
    left = "" if free is None else f", {megabytes(free)} of {SHARED_MEMORY} are free"
    return (
        f"The loader processes hold up to {megabytes(needed)} in shared memory{left}. "
        f"Give --workers 0, fewer --workers, or more of it (docker run --shm-size={-(-needed * 5 // 4) // 2**20 + 64}m)."
    )


def check_shared_memory(needed: int) -> None:
    """Refuse at the start what would die of SIGBUS later.

    Raises:
        LoaderError: fewer than ``needed`` bytes are free.
    """
    free = free_shared_memory()
    if free is not None and free < needed:
        raise LoaderError(f"shared memory is too small. {shared_memory_advice(needed)}")
