"""The settings of a protocol as options of a command, beside the command's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro

from cyborgs.evaluation.protocols.catalogue import Entry, Settings

Extra = tuple[str, Any, Any]
"""Name, type and default of one option more."""


def given(argv: Sequence[str], option: str) -> str | None:
    """What an option is given; for those that others follow from, which are read before these."""
    found = None
    for index, word in enumerate(argv):
        if word == option and index + 1 < len(argv):
            found = argv[index + 1]
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def parse(
    entry: Entry,
    own: type,
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    default: str,
    extra: Sequence[Extra] = (),
) -> tuple[Any, Settings, Any]:
    """The command's own options, the protocol's settings, and an object that holds the ``extra`` ones.

    Args:
        entry: of the protocol.
        own: dataclass of the command's options; ``preset`` is among them.
        argv: what was typed.
        prog: the command's name.
        description: for its help.
        default: the preset where none is given.
        extra: further options.
    """
    preset = given(argv, "--preset") or default
    settings = entry.small if preset == "small" else entry.settings
    parts: list[Any] = [
        ("common", Annotated[own, tyro.conf.arg(name="")]),
        ("settings", Annotated[type(settings), tyro.conf.arg(name="")], field(default=settings)),
        *((name, kind, field(default=value)) for name, kind, value in extra),
    ]
    asked: Any = make_dataclass("Asked", parts, frozen=True)
    found = tyro.cli(asked, args=list(argv), prog=prog, description=description)
    return found.common, found.settings, found
