"""``cyborgs masks``: what to do with masks that are there already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import tyro

from cyborgs.cli import renamed

_RENAMED: Final = {
    "--images": "photos are --data.",
    "--checkpoint": "the run or weights are named first, without an option.",
}


@dataclass(frozen=True)
class MaskQuality:
    """Measure label maps against people's annotations: a table, JSON and a picture.

    Measured photo by photo: covering, rand (PRI with several annotators), voi, split and joined (its two parts), ari, fg_ari,
    nmi, asa, abo, boundary_f, boundary_precision, boundary_recall, matched_miou, matched_accuracy. Over all photos
    together: mabo, and where labels mean the same in all of them hungarian_miou, hungarian_accuracy, majority_miou,
    majority_accuracy.
    """

    masks: tyro.conf.Positional[Path]
    """What `cyborgs segment` wrote, a run's folder, or a folder of label PNGs."""
    truth: str
    """Annotations: a folder of label PNGs, or KIND:PATH (coco:FILE.json, voc:DIR, cityscapes:DIR, ade20k:DIR, bsds:DIR, coco-stuff-10k:DIR, coco-stuff-164k:DIR, coco-stuff-27:DIR)."""
    out: Path | None = None
    """Folder for quality.json, quality.png, photos.csv and classes.csv; default: quality/ in the segmentation or run, NAME-quality beside a folder of PNGs."""
    data: Path | None = None
    """The photos, a folder or list: each must have a map, and the picture shows some; default: all photos that have a map."""
    generation: int | None = None
    """Which generation of a run's masks; default: the newest."""
    void: int | None = 255
    """Label of pixels that count nowhere, where the annotations are plain PNGs."""
    measures: tuple[str, ...] = ()
    """Names of the measures, see above; empty: all."""
    against: Literal["regions", "classes"] = "regions"
    """What one region of the truth is: each object and piece of stuff, or all of a class."""
    regions: Literal["components", "labels"] = "components"
    """What best overlap takes for objects and regions: connected parts, or all pixels of a label."""
    min_pixels: int = 1
    """Smaller objects are left out of best overlap."""
    tolerance: float = 0.0075
    """How far a border may lie from the true one, as a share of the diagonal; at least 1 pixel."""
    background: tuple[str, ...] = ("background",)
    """Classes, by name or number, that are no objects."""
    classes_file: Path | None = None
    """Names of the classes, a line each, class 0 first; default: those of the annotations."""
    same_ids: bool = False
    """Labels mean the same in all photos: match them to classes over all photos."""
    allow_missing: bool = False
    """Leave out photos without a map or annotation, and count them."""
    draws: int = 1000
    """Draws of the bootstrap over photos."""
    seed: int = 0
    """Of the draws."""
    workers: int = 0
    """Threads; 0: as many as cores."""


def quality(argv: list[str]) -> int:
    """``cyborgs masks quality``."""
    renamed.refuse(argv, _RENAMED)
    args = tyro.cli(MaskQuality, args=argv, prog="cyborgs masks quality")
    from cyborgs.api import quality
    from cyborgs.quality.measure import QualitySettings, read_class_names

    quality(
        args.masks,
        truth=args.truth,
        settings=QualitySettings(
            measures=args.measures,
            against=args.against,
            regions=args.regions,
            min_pixels=args.min_pixels,
            tolerance=args.tolerance,
            background=args.background,
            draws=args.draws,
            seed=args.seed,
            allow_missing=args.allow_missing,
        ),
        out=args.out,
        data=args.data,
        generation=args.generation,
        void=args.void,
        same_ids=args.same_ids,
        class_names=() if args.classes_file is None else read_class_names(args.classes_file),
        workers=args.workers,
    )
    return 0


@dataclass(frozen=True)
class Gallery:
    """Figure 4 of the paper: photos, their clusters at full resolution, the same after a CRF, and the truth."""

    backbone: tyro.conf.Positional[Path]
    """A run's folder (finished or going on), a backbone.safetensors, NAME:FILE or random:NAME."""
    data: Path
    """Folder or list of photos."""
    out: Path
    """The page (.html) or picture (.png, .pdf); --formats writes several beside each other."""
    truth: str | None = None
    """Annotations, as in `cyborgs masks quality`; none: no such column."""
    formats: tuple[Literal["html", "png", "pdf"], ...] = ()
    """All that is written, under the name of --out; empty: what its suffix says."""
    count: int = 6
    """Photos, evenly spread over the folder."""
    photos: tuple[str, ...] = ()
    """Names of photos below --data, in place of --count."""
    clusters: int = 27
    """Number of clusters."""
    fit: int = 256
    """Photos that are clustered together, those shown among them, at most."""
    layers: tuple[str, ...] = ()
    """Layers that are clustered; empty: those of the run's recipe."""
    short_side: int = 0
    """Longest allowed short side for the network, in pixels; 0: native size."""
    crf: bool = True
    """A column refined by a dense CRF, where the extra crf is installed."""
    numbers: bool = False
    """Write each region's number on it, also where colours tell them apart (up to 8)."""
    void: int | None = 255
    """Label of pixels without truth, where the annotations are plain PNGs."""
    seed: int = 0
    """Seed of the clustering."""


def gallery(argv: list[str]) -> int:
    """``cyborgs masks gallery``."""
    renamed.refuse(argv, _RENAMED)
    args = tyro.cli(Gallery, args=argv, prog="cyborgs masks gallery")
    from cyborgs.api import gallery

    for path in gallery(
        args.backbone,
        data=args.data,
        out=args.out,
        truth=args.truth,
        formats=args.formats,
        count=args.count,
        photos=args.photos,
        clusters=args.clusters,
        fit=args.fit,
        layers=args.layers,
        short_side=args.short_side,
        crf=args.crf,
        numbers=args.numbers,
        void=args.void,
        seed=args.seed,
    ):
        print(path)
    return 0


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "quality": (quality, "label maps and annotations -> a table, JSON and a picture"),
    "gallery": (gallery, "backbone and photos -> Figure 4: photo, clusters, CRF, truth"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: cyborgs masks COMMAND [OPTIONS]\n\n{lines}\n\n"
        "cyborgs masks COMMAND --help tells the options of a command.\n"
    )


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    if argv and argv[0] in COMMANDS:
        return COMMANDS[argv[0]][0](argv[1:])
    asked = bool(argv) and argv[0] in ("-h", "--help")
    wrong = "" if asked or not argv else f"cyborgs masks: no command is named {argv[0]!r}.\n\n"
    print(wrong + _usage(), end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2
