"""What the system refuses when files are written or read, in words that a user can act on."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cyborgs.errors import DiskError
from cyborgs.machine.disk import free_bytes, readable

_GO_ON: Final = "; a run then goes on with --resume"
_SPACE: Final = "Free space there, or move the folder to another disk"
_GONE: Final = (
    "its folder is gone",
    "If its disk was unmounted, mount it again; if the folder was removed, start anew",
)
_RIGHTS: Final = ("you have no right to write there", "Change its owner or rights (ls -ld), or move the folder")
_CAUSES: Final[Mapping[int | None, tuple[str, str]]] = {
    errno.ENOSPC: ("the disk is full", _SPACE),
    errno.EDQUOT: ("your quota on this disk is used up", _SPACE),
    errno.EFBIG: (
        "the file would be larger than is allowed",
        "Raise the limit (ulimit -f), or move the folder to a file system that takes larger files",
    ),
    errno.EROFS: (
        "the disk is read-only",
        "Mount it writable (a disk with errors is often made read-only: see dmesg), or move the folder to another",
    ),
    errno.EIO: ("the disk reports an error", "Check it (dmesg, smartctl), and copy the folder to another disk"),
    errno.EMFILE: ("this process has too many open files", "Raise the limit (ulimit -n) or lower --workers"),
    errno.ENFILE: ("this machine has too many open files", "End other programs, or raise sysctl fs.file-max"),
    errno.ENOENT: _GONE,
    errno.ENOTDIR: _GONE,
    errno.ESTALE: _GONE,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ELOOP: ("it is a symbolic link, and nothing is written through one", "Remove the link"),
}
_COUNTED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Causes for which it matters how many bytes were to be written."""


def why(error: OSError) -> str:
    """What the system refused in reading, in plain words."""
    known = error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE)
    return _CAUSES[error.errno][0] if known else error.strerror or str(error)


def disk_error(error: OSError, path: Path, needed: int | None = None, action: str = "written") -> DiskError:
    """The error that says what the system refused at ``path``, and what to do.

    Args:
        error: what the system said.
        path: what was to be written; its disk is asked for the bytes that are free, so clean up before.
        needed: bytes that were to be written.
        action: what cannot be done.
    """
    free = free_bytes(path)
    cause, advice = _CAUSES.get(error.errno, (error.strerror or str(error), "Remove the cause"))
    text = f"{path}: cannot be {action}: {cause}."
    if error.errno in _COUNTED and needed is not None:
        text += f" {readable(needed)} were to be written"
        text += f", {readable(free)} are free on that disk." if free is not None else "."
    return DiskError(f"{text} {advice}{_GO_ON}.", path, error.errno, needed, free)
