"""``cyborgs evaluate``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import tyro

from cyborgs.cli import exits, protocol_options, renamed
from cyborgs.evaluation.protocols.catalogue import ENTRIES, Settings

_RENAMED: Final = dict.fromkeys(
    ("--train", "--val"),
    "the protocol is named first, and takes one --data. Lists of 'photo label' lines are train.txt and val.txt there: "
    "cyborgs evaluate dense-probe --backbone BACKBONE --data FOLDER.",
)
SHARE: Final = (
    "Share of the training labels, above 0 to 1, drawn from the seed: each class keeps its share of the photos, and "
    "one at least where there are as many photos as classes."
)


@dataclass(frozen=True, kw_only=True)
class Evaluate(protocol_options.Judging):
    """What every protocol is asked."""

    backbone: str
    """A run's folder, a backbone.safetensors, random, imagenet:FILE, torchvision:NAME, timm:NAME, NAME:FILE, or a checkpoint
    file of MoCo, DenseCL, VISSL, VirTex, ... (docs/evaluation.md)."""
    data: Path
    """Labelled photos, in the protocol's layout (docs/evaluation.md)."""
    random_baseline: bool = True
    """Judge random weights of the same architecture too."""
    seed: int = 0
    """Of heads, orders, drawn splits and random weights."""
    out: Path | None = None
    """Folder for result.json and per_class.csv, and for checkpoints from which the same command goes on; default: none."""


def _usage() -> str:
    width = max(map(len, ENTRIES))
    lines = "\n".join(f"  {name:<{width}}  {entry.about}" for name, entry in ENTRIES.items())
    return (
        f"usage: cyborgs evaluate PROTOCOL --backbone BACKBONE --data PHOTOS [OPTIONS]\n\n{lines}\n\n"
        "cyborgs evaluate PROTOCOL --help tells the options of a protocol.\n"
    )


def parse(name: str, argv: list[str]) -> tuple[dict[str, Any], float, Settings]:
    """What every protocol is asked, the share of the labels, and the protocol's settings, each an option of its own."""
    entry = ENTRIES[name]
    own, settings, found = protocol_options.parse(
        entry,
        Evaluate,
        argv,
        prog=f"cyborgs evaluate {name}",
        description=f"{entry.about}.",
        # Those that have one of their own call it by the same name.
        extra=() if hasattr(entry.settings, "share") else [("share", Annotated[float, tyro.conf.arg(help=SHARE)], 1.0)],
    )
    return vars(own), getattr(found, "share", 1.0), settings


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    if argv and argv[0] in ("-h", "--help"):
        print(_usage(), end="")
        return exits.DONE
    renamed.refuse(argv, _RENAMED)
    if not argv or argv[0] not in ENTRIES:
        wrong = f"cyborgs evaluate: no protocol is named {argv[0]!r}.\n\n" if argv else ""
        print(wrong + _usage(), end="", file=sys.stderr)
        return exits.USAGE
    options, share, settings = parse(argv[0], argv[1:])
    from cyborgs.api import evaluate
    from cyborgs.engine.contract import Stopped

    try:
        evaluate(argv[0], settings=settings, share=share, **options)
    except Stopped as stopped:
        if options["out"] is None:
            exits.tell("Stopped. Nothing is kept without --out.")
            return exits.of_signal(stopped.signal)
        return exits.of_stop(["evaluate", *argv], stopped)
    return exits.DONE
