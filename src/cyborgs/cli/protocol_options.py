"""What commands that take a protocol have in common: their options, and the settings of the protocol beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import tyro

from cyborgs.evaluation.protocols.catalogue import DEFAULT_PRESET, Entry, Preset, Settings

Extra = tuple[str, Any, Any]
"""Name, type and default of one option more."""


@dataclass(frozen=True, kw_only=True)
class Judging:
    """Options of every command that judges backbones."""

    preset: Preset = DEFAULT_PRESET
    """Settings of the protocol: some for minutes on two cores, or the published ones; options change single ones."""
    draws: int = 1000
    """Draws of the test images, for intervals."""
    device: str = "cpu"
    """Where networks run: cpu, cuda, cuda:1, ..."""
    workers: int = 0
    """Loader processes of what is trained; the result does not depend on it."""


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
    entry: Entry, own: type, argv: Sequence[str], *, prog: str, description: str, extra: Sequence[Extra] = ()
) -> tuple[Any, Settings, Any]:
    """The command's own options, the protocol's settings, and an object that holds the ``extra`` ones.

    Args:
        entry: of the protocol.
        own: dataclass of the command's options, a ``Judging``.
        argv: what was typed.
        prog: the command's name.
        description: for its help.
        extra: further options.
    """
    settings = entry.of(given(argv, "--preset") or DEFAULT_PRESET)
    parts: list[Any] = [
        ("common", Annotated[own, tyro.conf.arg(name="")]),
        ("settings", Annotated[type(settings), tyro.conf.arg(name="")], field(default=settings)),
        *((name, kind, field(default=value)) for name, kind, value in extra),
    ]
    asked: Any = make_dataclass("Asked", parts, frozen=True)
    found = tyro.cli(asked, args=list(argv), prog=prog, description=description)
    return found.common, found.settings, found
