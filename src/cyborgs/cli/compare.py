"""``cyborgs compare`` and ``cyborgs curve``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from cyborgs.cli import protocol_options
from cyborgs.evaluation.protocols.catalogue import ENTRIES, known
from cyborgs.evaluation.protocols.guess import guess_protocol


@dataclass(frozen=True)
class Compare:
    """Did pretraining help on my images? Several backbones through one protocol: a table, a picture, a sentence."""

    data: Path
    """Labelled photos: class folders, or photos and label PNGs; see `cyborgs evaluate --help` for other layouts."""
    backbones: tuple[str, ...]
    """The first is compared with each of the others: a run's folder, a backbone.safetensors, random, imagenet:FILE,
    timm:NAME, NAME:FILE, a checkpoint file of MoCo, DenseCL, VISSL, VirTex, ..."""
    out: Path = Path("compare")
    """Folder for compare.json, compare.md and compare.png; what is finished there is not measured again."""
    protocol: str = ""
    """Name, as in `cyborgs evaluate`; empty: linear-classification for class folders, dense-probe for label PNGs."""
    preset: Literal["small", "paper"] = "small"
    """Settings of the protocol: minutes on two cores, or the published ones."""
    seeds: int = 1
    """Heads, orders, splits and random weights, this often."""
    shares: tuple[float, ...] = (100.0,)
    """Shares of the training labels in percent, such as 1 5 10 50 100: the label-efficiency curve."""
    draws: int = 1000
    """Draws of the test images, for intervals."""
    device: str = "cpu"
    """Where networks run: cpu, cuda, cuda:1, ..."""
    workers: int = 0
    """Loader processes of what is trained; the result does not depend on it."""


ABOUT = (
    "Did pretraining help on my images? Several backbones through one protocol: a table, a picture, a sentence. "
    "Settings of the protocol are options too: --protocol NAME --help lists them."
)


def _protocol(argv: list[str]) -> str:
    """The protocol that is asked for, or follows from the data; empty where neither is given."""
    name, data = protocol_options.given(argv, "--protocol"), protocol_options.given(argv, "--data")
    if name:
        return known(name)
    return "" if data is None else guess_protocol(data)


def run(argv: list[str]) -> int:
    """``cyborgs compare``: parse and do it; the exit code."""
    name = _protocol(argv)
    settings = None
    if name:
        about = f"{ABOUT} Here it is {name}: {ENTRIES[name].about}."
        args, settings, _ = protocol_options.parse(
            ENTRIES[name], Compare, argv, prog="cyborgs compare", description=about, default="small"
        )
    else:
        args = tyro.cli(Compare, args=argv, prog="cyborgs compare", description=ABOUT)
    from cyborgs.api import compare

    compare(
        args.data,
        args.backbones,
        out=args.out,
        protocol=name,
        preset=args.preset,
        settings=settings,
        seeds=args.seeds,
        shares=args.shares,
        draws=args.draws,
        device=args.device,
        workers=args.workers,
    )
    return 0


@dataclass(frozen=True)
class Curve:
    """Figure 5b of the paper: the checkpoints that a run kept, through one or several protocols."""

    run: tyro.conf.Positional[Path]
    """A run's folder; it must have kept checkpoints (--snapshots 5 25 50 100 when it was pretrained)."""
    data: tuple[str, ...]
    """Labelled photos: one place for all protocols, or one for each."""
    protocols: tuple[str, ...] = ("coco-stuff", "coco-stuff-probe")
    """Names, as in `cyborgs evaluate`."""
    out: Path | None = None
    """Folder for curve.json and curve.png; default: curve/ in the run's folder."""
    preset: Literal["small", "paper"] = "small"
    """Settings of the protocols: minutes on two cores, or the published ones."""
    seeds: int = 1
    """Heads and orders, this often."""
    draws: int = 1000
    """Draws of the test images, for intervals."""
    device: str = "cpu"
    """Where networks run: cpu, cuda, cuda:1, ..."""
    workers: int = 0
    """Loader processes of what is trained; the result does not depend on it."""


def run_curve(argv: list[str]) -> int:
    """``cyborgs curve``: parse and do it; the exit code."""
    args = tyro.cli(Curve, args=argv, prog="cyborgs curve")
    from cyborgs.api import curve

    curve(
        args.run,
        data=args.data,
        protocols=args.protocols,
        out=args.out,
        preset=args.preset,
        seeds=args.seeds,
        draws=args.draws,
        device=args.device,
        workers=args.workers,
    )
    return 0
