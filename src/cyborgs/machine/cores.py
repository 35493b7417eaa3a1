"""What the machine gives this process: cores, limits of its control group, instructions. No torch when it is loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_GROUPS: Final = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """What advice needs to know of the machine."""

    cores: int
    """That this process may use."""
    gpu: bool = False
    bf16: bool = True
    """Whether the device computes in bf16 by itself, not in software."""


def this_machine() -> Machine:
    """The one this runs on."""
    import torch

    if torch.cuda.is_available():
        return Machine(usable_cores(), gpu=True, bf16=torch.cuda.is_bf16_supported(including_emulation=False))
    flags = cpu_flags()
    return Machine(usable_cores(), bf16=not flags or bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}))


def affinity_cores() -> int:
    """Cores that the scheduler lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cores() -> int:
    """Cores that this process may keep busy: its affinity, and the quota of its control group."""
    quota = cpu_quota()
    return max(1, min(affinity_cores(), round(quota))) if quota else affinity_cores()


def cpu_flags() -> set[str]:
    """Names of the first core's instruction sets as Linux has them; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith(("flags", "Features"))), set())


def cpu_quota() -> float | None:
    """Cores' worth of time that the control group allows, or None for no limit."""
    found = []
    for text in _cgroup("cpu.max"):
        quota, _, period = text.partition(" ")
        if quota != "max":
            found.append(int(quota) / int(period or 100_000))
    for quota, period in zip(_cgroup("cpu/cpu.cfs_quota_us"), _cgroup("cpu/cpu.cfs_period_us"), strict=False):
        if int(quota) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def memory_limit() -> int | None:
    """Bytes that the control group allows, or None for no limit."""
    texts = [*_cgroup("memory.max"), *_cgroup("memory/memory.limit_in_bytes")]
    limits = [int(text) for text in texts if text != "max"]
    return min((limit for limit in limits if limit < 2**60), default=None)


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or less where the control group says so."""
    total = installed_memory()
    return min(total, memory_limit() or total)


def installed_memory() -> int:
    """Bytes of memory that the machine has, whoever may use it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup(name: str) -> Iterator[str]:
    """Contents of a file of this process's control group and those above it; nothing where there is none."""
    controller, _, file = name.rpartition("/")
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    own = next((line.split(":", 2)[2] for line in lines if controller in line.split(":", 2)[1].split(",")), "/")
    root = CGROUPS / controller
    folder = root / own.lstrip("/")
    while True:
        with contextlib.suppress(OSError):  # the root has no limits, and a container sees its own group as the root
            yield (folder / file).read_text().strip()
        if folder in (root, folder.parent):
            return
        folder = folder.parent
