"""``cyborgs segment``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import tyro

from cyborgs.cli import renamed
from cyborgs.errors import UserError
from cyborgs.masks.config import CrfConfig, FelzenszwalbConfig, MaskConfig, SelectiveSearchConfig
from cyborgs.segmenting.config import ExportName, SegmentSource

_RENAMED: Final = {
    "--checkpoint": "weights are --backbone.",
    "--images": "the photos are named first, without an option.",
}


@dataclass(frozen=True)
class Segment:
    """Masks of a folder of photos: label PNGs at the photos' size, overlays, COCO JSON. A second start goes on."""

    data: tyro.conf.Positional[Path]
    """Folder of photos, or a text file with a path a line."""
    out: Path
    """Folder for the label PNGs and all else; with several numbers of clusters a folder k<K> below it for each."""
    backbone: str | None = None
    """For clusters and bootstrap: a run's folder, a backbone.safetensors, NAME:FILE (resnet50:weights.pth, timm:convnext_tiny:weights.safetensors) or random:NAME."""
    source: SegmentSource = "clusters"
    """clusters: one clustering of all photos' features, one id space; bootstrap: groups of photos, as in training; the others need no network."""
    clusters: tuple[int, ...] = ()
    """Number of clusters, or several; default 27, for bootstrap drawn anew for each group."""
    resolution: Literal["full", "nearest"] | None = None
    """full: features enlarged bilinearly (the default of clusters); nearest: labels of the map's cells."""
    layers: tuple[str, ...] = ()
    """Layers that are clustered; empty: those of the run's recipe, or the last block at stride 8."""
    short_side: int = 0
    """Longest allowed short side for the network, in pixels; 0: native size."""
    seed: int = 0
    """Seed of the clustering, of groups and of random weights."""
    crf: bool = False
    """Refine the masks of clusters or bootstrap by a dense CRF; needs the extra crf."""
    crf_settings: CrfConfig = field(default_factory=CrfConfig)
    """Of the CRF."""
    group_size: int = 16
    """Photos that bootstrap clusters together."""
    border: int = 0
    """For bootstrap: pixels by which a photo is mirrored beyond its edges before the network sees it, a multiple of 32."""
    grid: int = 5
    """n of the n x n grid."""
    felzenszwalb: FelzenszwalbConfig = field(default_factory=FelzenszwalbConfig)
    """Of felzenszwalb."""
    selective_search: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)
    """Of selective-search."""
    truth: str = ""
    """Annotations for ground-truth, KIND:PATH: coco:FILE.json, voc:DIR, cityscapes:DIR, ade20k:DIR, coco-stuff-10k:DIR, coco-stuff-164k:DIR, folder:DIR of PNGs."""
    overlays: bool = True
    """Write overlays beside the label PNGs."""
    export: tuple[ExportName, ...] = ("coco",)
    """Formats beside the label PNGs: coco (instances), panoptic, label-studio, or none."""
    min_area: int = 64
    """Smallest connected part that is a COCO instance, in pixels."""
    overwrite: bool = False
    """Remove a segmentation of other settings from --out first."""
    device: str = "cpu"
    """Where the network and the clustering run: cpu, cuda, cuda:1, ..."""


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    renamed.refuse(argv, _RENAMED)
    args = tyro.cli(Segment, args=argv, prog="cyborgs segment")
    from cyborgs.api import segment

    try:
        masks = MaskConfig(
            group_size=args.group_size,
            border=args.border,
            grid=args.grid,
            felzenszwalb=args.felzenszwalb,
            selective_search=args.selective_search,
            truth=args.truth,
            crf=replace(args.crf_settings, enabled=args.crf),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    segment(
        args.data,
        out=args.out,
        backbone=args.backbone,
        source=args.source,
        clusters=args.clusters,
        layers=args.layers,
        resolution=args.resolution,
        short_side=args.short_side,
        seed=args.seed,
        masks=masks,
        crf=args.crf,
        overlays=args.overlays,
        export=args.export,
        min_area=args.min_area,
        overwrite=args.overwrite,
        device=args.device,
    )
    return 0
