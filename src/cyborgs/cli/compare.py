"""``cyborgs compare`` and ``cyborgs curve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import tyro

from cyborgs.cli import exits, protocol_options, renamed
from cyborgs.evaluation.protocols.catalogue import ENTRIES, known
from cyborgs.evaluation.sets.layouts import guess_protocol

ABOUT: Final = (
    "Did pretraining help on my images? Several backbones through one protocol: a table, a picture, a sentence. "
    "Settings of the protocol are options too: --protocol NAME --help lists them."
)
_RENAMED: Final = {"--backbones": "backbones are given by --backbone, one or several: --backbone runs/first random."}


@dataclass(frozen=True, kw_only=True)
class Compare(protocol_options.Judging):
    """Did pretraining help on my images? Several backbones through one protocol: a table, a picture, a sentence."""

    backbone: tuple[str, ...]
    """The first is compared with each of the others: a run's folder, a backbone.safetensors, random, imagenet:FILE,
    timm:NAME, NAME:FILE, a checkpoint file of MoCo, DenseCL, VISSL, VirTex, ..."""
    data: Path
    """Labelled photos: class folders, or photos and label PNGs; see `cyborgs evaluate --help` for other layouts."""
    out: Path = Path("compare")
    """Folder for compare.json, compare.md and compare.png; what is finished there is not measured again."""
    protocol: str = ""
    """Name, as in `cyborgs evaluate`; empty: linear-classification for class folders, dense-probe for label PNGs."""
    seeds: int = 1
    """Heads, orders, splits and random weights, this often."""
    shares: tuple[float, ...] = (100.0,)
    """Shares of the training labels in percent, such as 1 5 10 50 100: the label-efficiency curve."""


def run(argv: list[str]) -> int:
    """``cyborgs compare``: parse and do it; the exit code."""
    renamed.refuse(argv, _RENAMED)
    name, data = protocol_options.given(argv, "--protocol"), protocol_options.given(argv, "--data")
    if name:
        name = known(name)
    elif data is not None:
        name = guess_protocol(data)
    settings = None
    if name:
        about = f"{ABOUT} Here it is {name}: {ENTRIES[name].about}."
        args, settings, _ = protocol_options.parse(
            ENTRIES[name], Compare, argv, prog="cyborgs compare", description=about
        )
    else:
        args = tyro.cli(Compare, args=argv, prog="cyborgs compare", description=ABOUT)
    from cyborgs.api import compare

    compare(settings=settings, **(vars(args) | {"protocol": name or ""}))
    return exits.DONE


@dataclass(frozen=True, kw_only=True)
class Curve(protocol_options.Judging):
    """Figure 5b of the paper: the checkpoints that a run kept, through one or several protocols."""

    run: tyro.conf.Positional[Path]
    """A run's folder; it must have kept checkpoints (--snapshots 5 25 50 100 when it was pretrained)."""
    data: tuple[str, ...]
    """Labelled photos: one place for all protocols, or one for each."""
    protocols: tuple[str, ...] = ("coco-stuff", "coco-stuff-probe")
    """Names, as in `cyborgs evaluate`."""
    out: Path | None = None
    """Folder for curve.json and curve.png; default: curve/ in the run's folder."""
    seeds: int = 1
    """Heads and orders, this often."""


def run_curve(argv: list[str]) -> int:
    """``cyborgs curve``: parse and do it; the exit code."""
    args = tyro.cli(Curve, args=argv, prog="cyborgs curve")
    from cyborgs.api import curve

    curve(**vars(args))
    return exits.DONE
