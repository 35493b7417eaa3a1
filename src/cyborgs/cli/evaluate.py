"""``cyborgs evaluate``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyborgs.cli import exits, protocol_options
from cyborgs.evaluation.protocols.catalogue import ENTRIES, Settings


@dataclass(frozen=True)
class Evaluate:
    """Linear segmentation: a 1x1 convolution on frozen maps, random weights beside it."""

    backbone: Path
    """A run's folder or a backbone.safetensors."""
    train: Path
    """List of 'image label' lines to train on."""
    val: Path
    """List of 'image label' lines to measure on."""
    classes: int
    """Number of classes in the label images."""
    ignore: int = 255
    """Label that is not counted."""
    layers: tuple[str, ...] = ()
    """Layers to probe, each alone and then all together; empty: the first, the last and all of the fused ones."""
    seeds: int = 1
    """Probes with other seeds."""
    random_baseline: bool = True
    """Probe the same architecture with random weights too."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass(frozen=True)
class Judge:
    """What every protocol is asked."""

    backbone: str
    """A run's folder, a backbone.safetensors, random, imagenet:FILE, torchvision:NAME, timm:NAME, NAME:FILE, or a checkpoint
    file of MoCo, DenseCL, VISSL, VirTex, ... (docs/evaluation.md)."""
    data: Path
    """Labelled photos, in the protocol's layout (docs/evaluation.md)."""
    preset: Literal["paper", "small"] = "paper"
    """The published settings, or some for minutes on two cores; other options change single ones."""
    random_baseline: bool = True
    """Judge random weights of the same architecture too."""
    seed: int = 0
    """Of heads, orders, drawn splits and random weights."""
    draws: int = 1000
    """Draws of the test images, for intervals."""
    out: Path | None = None
    """Folder for result.json and per_class.csv, and for checkpoints from which the same command goes on; default: none."""
    device: str = "cpu"
    """Where networks run: cpu, cuda, cuda:1, ..."""
    workers: int = 0
    """Loader processes of what is trained; the result does not depend on it."""


def _usage() -> str:
    width = max(map(len, ENTRIES))
    lines = "\n".join(f"  {name:<{width}}  {entry.about}" for name, entry in ENTRIES.items())
    return (
        f"usage: cyborgs evaluate PROTOCOL --backbone BACKBONE --data PHOTOS [OPTIONS]\n\n{lines}\n\n"
        "cyborgs evaluate PROTOCOL --help tells the options of a protocol.\n"
        "cyborgs evaluate --backbone RUN --train LIST --val LIST --classes N probes several layers on lists of photos.\n"
    )


def _parse(name: str, argv: list[str]) -> tuple[Judge, float, Settings]:
    """What every protocol is asked, the share of the labels, and the protocol's settings, each an option of its own."""
    entry = ENTRIES[name]
    share = (
        "Share of the training labels, above 0 to 1, drawn from the seed: each class keeps its share of the photos, and "
        "one at least where there are as many photos as classes."
    )
    extra = [("share", Annotated[float, tyro.conf.arg(help=share)], 1.0)]
    own, settings, found = protocol_options.parse(
        entry,
        Judge,
        argv,
        prog=f"cyborgs evaluate {name}",
        description=f"{entry.about}.",
        default="paper",
        extra=() if hasattr(entry.settings, "share") else extra,  # those that have it call it by the same name
    )
    return own, getattr(found, "share", 1.0), settings


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    if argv and argv[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    if not argv or not argv[0].startswith("-"):
        return _protocol(argv)
    args = tyro.cli(Evaluate, args=argv, prog="cyborgs evaluate")
    from cyborgs.api import evaluate

    evaluate(
        args.backbone,
        train=args.train,
        val=args.val,
        classes=args.classes,
        ignore=args.ignore,
        layers=args.layers,
        seeds=args.seeds,
        random_baseline=args.random_baseline,
        out=args.out,
    )
    return 0


def _protocol(argv: list[str]) -> int:
    if not argv or argv[0] not in ENTRIES:
        wrong = f"cyborgs evaluate: no protocol is named {argv[0]!r}.\n\n" if argv else ""
        print(wrong + _usage(), end="", file=sys.stderr)
        return 2
    args, share, settings = _parse(argv[0], argv[1:])
    from cyborgs.api import judge
    from cyborgs.engine.contract import Stopped

    try:
        judge(
            argv[0],
            args.backbone,
            data=args.data,
            settings=settings,
            preset=args.preset,
            random_baseline=args.random_baseline,
            share=share,
            seed=args.seed,
            draws=args.draws,
            out=args.out,
            device=args.device,
            workers=args.workers,
        )
    except Stopped as stopped:
        if args.out is None:
            exits.tell("Stopped. Nothing is kept without --out.")
            return exits.of_signal(stopped.signal)
        return exits.of_stop(["evaluate", *argv], stopped)
    return exits.DONE
