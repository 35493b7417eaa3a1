"""``cyborgs evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


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


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
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
