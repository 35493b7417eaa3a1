"""``cyborgs segment``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Segment:
    """Cluster the features of all photos together: label PNGs at the photos' size, and overlays."""

    photos: tyro.conf.Positional[Path]
    """Folder of photos, or a text file with a path a line."""
    checkpoint: Path
    """A run's folder or a backbone.safetensors."""
    out: Path
    """Folder for the label PNGs and overlays."""
    clusters: int = 27
    """Number of clusters: one id space for all photos."""
    layers: tuple[str, ...] = ()
    """Layers that are clustered; empty: those of the checkpoint's recipe."""
    short_side: int = 0
    """Longest allowed short side for the network, in pixels; 0: native size."""
    seed: int = 0
    """Seed of the clustering."""
    overlays: bool = True
    """Write overlays beside the label PNGs."""


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    args = tyro.cli(Segment, args=argv, prog="cyborgs segment")
    from cyborgs.api import segment

    segment(
        args.photos,
        checkpoint=args.checkpoint,
        out=args.out,
        clusters=args.clusters,
        layers=args.layers,
        short_side=args.short_side,
        seed=args.seed,
        overlays=args.overlays,
    )
    return 0
