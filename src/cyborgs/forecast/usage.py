"""Memory of processes, as the system counts it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path


def peak_bytes(pid: int | str = "self") -> int:
    """The most memory that a process has held at once; without /proc that of this process alone."""
    found = _field(Path(f"/proc/{pid}/status"), ("VmHWM:",))
    if found or pid not in ("self", os.getpid()):
        return found
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def own_bytes(pids: Iterable[int]) -> list[int]:
    """Memory that each of these processes shares with no other; 0 for one that is gone, and without /proc.

    A forked worker seems to hold all that its parent held when it was born, and pays for none of it.
    """
    return [_field(Path(f"/proc/{pid}/smaps_rollup"), ("Private_Clean:", "Private_Dirty:")) for pid in pids]


def _field(path: Path, names: tuple[str, ...]) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(names))
