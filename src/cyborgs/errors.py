"""The one base of errors that are the input's fault: their message is for the user, without a traceback."""

from __future__ import annotations

import unicodedata
from pathlib import Path

_JOINERS = "\u200c\u200d"
"""Characters without a width that Persian, Indian scripts and emoji are written with."""


def printable(text: str) -> str:
    """The text with all that is no visible character written as escapes, so that it can be printed anywhere.

    Bytes that are no UTF-8, control characters (a terminal would obey them), ends of lines, and marks that turn the
    direction of what follows; spaces of all scripts stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c
        if c.isprintable() or c in _JOINERS or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


class UserError(ValueError):
    """What was wrong, with which file or field, and what to do. As text it is one line that any terminal may get."""

    def __str__(self) -> str:
        return printable(super().__str__())

    code: int = 1
    """Exit code of a command that it ends (cli/exits.py has the table)."""
    reports_itself: bool = False
    """Of several processes this one alone may have it, and says it itself; otherwise the first speaks for all."""


class NotFiniteError(UserError):
    """Numbers that should be finite are NaN or infinite."""


class DiskError(UserError):
    """The disk, or its settings, did not take what was to be written. ``files.disk_error`` makes it.

    Args:
        message: for the user: path, what failed, bytes needed and free where they matter, what to do.
        path: what was to be written, renamed or removed.
        errno: the system's number, None where it gave none.
        needed: bytes that were to be written, where that is known.
        free: bytes free on that disk when it failed, where that can be asked.
    """

    code = 4

    def __init__(
        self, message: str, path: Path, errno: int | None, needed: int | None = None, free: int | None = None
    ) -> None:
        super().__init__(message, path, errno, needed, free)
        self.path = path
        self.errno = errno
        self.needed = needed
        self.free = free

    def __str__(self) -> str:
        return printable(str(self.args[0]))
