"""Room on a disk: how much there is, and how it is told."""

from __future__ import annotations

import os
from pathlib import Path


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int | None:
    """Bytes that this user may still write on the disk of ``path``, which need not be there yet; None: not known."""
    try:
        found = os.statvfs(existing(path))
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def readable(size: float) -> str:
    """``999 bytes``, ``1.2 MB``."""
    if size < 1000:
        return f"{size:.0f} bytes"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"
