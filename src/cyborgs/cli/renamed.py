"""Options that have another name now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cyborgs.cli import exits
from cyborgs.errors import UserError


class Renamed(UserError):
    """An option that has another name now."""

    code = exits.USAGE


def refuse(argv: Sequence[str], renamed: Mapping[str, str]) -> None:
    """Raises ``Renamed`` where an option is among ``renamed``: what it was called -> what to say instead."""
    for word in argv:
        old = word.partition("=")[0]
        if old in renamed:
            raise Renamed(f"there is no {old}: {renamed[old]}")
