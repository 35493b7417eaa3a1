"""Memory of this machine and process, as far as the system tells it (Linux); and what running out of it looks like."""

from __future__ import annotations

from pathlib import Path

import torch

SIGNS = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "ALLOC_FAILED",
)
"""What the message of a plain RuntimeError says then: torch's CPU allocator, oneDNN, cuBLAS and cuDNN."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign.lower() in str(error).lower() for sign in SIGNS)


def resident() -> int | None:
    """Bytes of memory that this process holds now; None where the system does not tell."""
    return _status("VmRSS")


def forget_peak() -> bool:
    """Begin to measure ``peak`` anew; False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return _status("VmHWM") is not None


def peak() -> int:
    """The most bytes that this process held since ``forget_peak``."""
    return _status("VmHWM") or 0


def available(root: Path = Path("/")) -> int | None:
    """Bytes that processes can still take: the machine's, or what is left to this process's control groups.

    None where the system does not tell.
    """
    try:
        found = [_kibibytes((root / "proc/meminfo").read_text(), "MemAvailable")]
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            home = root / "sys/fs/cgroup/memory"
            found += _left(home, path, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _left(home: Path, path: str, limit: str, usage: str, reclaimable: str) -> list[int | None]:
    """What is left in a control group and in each that holds it; in a container the path may begin elsewhere."""
    folder = home / path.lstrip("/")
    found: list[int | None] = []
    for group in (folder, *folder.parents):
        if not group.is_relative_to(home):
            break
        try:
            most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
            statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most != "max":
            # Pages of files that were read long ago are given back before anything fails.
            found.append(max(0, int(most) - used + int(statistics.get(reclaimable, 0))))
    return found


def _status(field: str) -> int | None:
    try:
        return _kibibytes(Path("/proc/self/status").read_text(), field)
    except OSError:
        return None


def _kibibytes(text: str, field: str) -> int | None:
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
