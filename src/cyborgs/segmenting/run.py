"""``cyborgs segment`` put together: photos, network or source, exports and the folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from cyborgs.data.images import Images, ScannedImages
from cyborgs.engine.log import moving
from cyborgs.errors import UserError, printable
from cyborgs.files import make_folder
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.source import MaskSource
from cyborgs.methods.settings import Bootstrapping
from cyborgs.models.named import ALLOWED, Named, open_named
from cyborgs.runs.build import Features, bootstrapped_layers, fixed_source
from cyborgs.runs.folder import locked
from cyborgs.runs.recipe_file import from_dict
from cyborgs.segmenting.by_source import segment_source
from cyborgs.segmenting.config import NETWORK, SegmentConfig
from cyborgs.segmenting.export_coco import CocoInstances, CocoPanoptic
from cyborgs.segmenting.export_label_studio import LabelStudio
from cyborgs.segmenting.folder import Export
from cyborgs.segmenting.segment import Ids
from cyborgs.segmenting.segment import segment as segment_clusters

IDS: dict[str, Ids] = {
    "clusters": "dataset",
    "bootstrap": "group",
    "grid": "dataset",
    "whole": "dataset",
    "felzenszwalb": "photo",
    "selective-search": "photo",
    "ground-truth": "photo",
}
"""How far a label means the same. A grid's cell is the same place of every photo."""


def segment(
    photos: str | Path,
    read_photos: Callable[[str | Path], ScannedImages],
    config: SegmentConfig,
    *,
    out: str | Path,
    backbone: str | Path | None = None,
    overwrite: bool = False,
    device: str = "cpu",
) -> None:
    """As ``api.segment``; ``read_photos`` scans."""
    named = _network(config, backbone, device)
    images = read_photos(photos)
    layers = _layers(config, named)
    exports = _exports(config, images)
    about: dict[str, Any] = {
        "weights": None if named is None else {"name": named.weights, "hash": named.hash},
        "skipped": [list(entry) for entry in images.skipped],
    }
    with ExitStack() as stack:
        if not Path(out).is_file():  # told in the folder's own words
            make_folder(Path(out), parents=True)
            stack.enter_context(locked(Path(out), True))
        _write(images, config, named, layers, exports, about, out=Path(out), overwrite=overwrite, device=device)
    for name, reason in images.skipped[:10]:
        print(printable(f"  skipped {name}: {reason}"))


def _write(
    images: ScannedImages,
    config: SegmentConfig,
    named: Named | None,
    layers: tuple[str, ...],
    exports: Callable[[int], Sequence[Export]],
    about: dict[str, Any],
    *,
    out: Path,
    overwrite: bool,
    device: str,
) -> None:
    settings = _settings(config, named)
    more: dict[str, Any] = {
        "seed": config.seed,
        "overlays": config.overlays,
        "exports": exports,
        "settings": settings,
        "about": about,
        "overwrite": overwrite,
    }
    folders: dict[int, Path] = {}
    if config.source == "clusters":
        assert named is not None
        ks = config.clusters or (27,)
        folders = _folders(out, ks)
        with moving("segmenting") as progress:
            found = segment_clusters(
                images,
                named.backbone,
                out,
                layers=layers,
                clusters=ks,
                short_side=config.short_side,
                resolution=config.resolution or "full",
                crf=config.masks.crf if config.crf else None,
                progress=progress,
                **more,
            )
        for k, folder in folders.items():
            _say(images, f"{k} clusters", folder, found[k] is None)
    else:
        ks = tuple(dict.fromkeys(config.clusters)) or (0,)
        for k, folder in _folders(out, ks).items():
            source = _source(config, k, images, named, layers, device)
            count = {"grid": config.masks.grid**2, "whole": 1}.get(config.source, 0)
            with moving("segmenting") as progress:
                fresh = segment_source(
                    images,
                    source,
                    folder,
                    ids=IDS[config.source],
                    labels=count,
                    progress=progress,
                    **{
                        **more,
                        "settings": {**settings, "clusters": k},
                        "about": {**about, "clusters": k or None, "layers": list(layers)},
                    },
                )
            _say(images, f"regions of {config.source}" + (f", {k} clusters a group" if k else ""), folder, not fresh)


def _folders(out: Path, ks: Sequence[int]) -> dict[int, Path]:
    ks = tuple(dict.fromkeys(ks))
    return {k: out if len(ks) == 1 else out / f"k{k}" for k in ks}


def _say(images: ScannedImages, what: str, folder: Path, found: bool) -> None:
    done = " (found, made by an earlier start)" if found else ""
    labels = printable(str(folder / "labels"))
    print(f"{len(images)} photos in {what}, {len(images.skipped)} files skipped: {labels}{done}")


def _network(config: SegmentConfig, backbone: str | Path | None, device: str) -> Named | None:
    if config.source not in NETWORK:
        if backbone is not None:
            raise UserError(f"--backbone: {config.source} needs no network. Leave it out.")
        return None
    if backbone is None:
        raise UserError(f"--backbone: {config.source} needs a network: {ALLOWED}")
    named = open_named(backbone, seed=config.seed)
    named.backbone.to(device)
    return named


def _bootstrapping(named: Named) -> Bootstrapping | None:
    """How the run that made the weights made masks; None where it made none, or there was no run."""
    return from_dict(named.recipe).method.bootstrapping if named.recipe else None


def _layers(config: SegmentConfig, named: Named | None) -> tuple[str, ...]:
    """Those that were asked for, those of the recipe, or the network's default; checked before photos are read."""
    if named is None:
        return ()
    layers = config.layers or bootstrapped_layers(_bootstrapping(named), named.backbone)
    named.backbone.check_layers(layers)
    return tuple(layers)


def _settings(config: SegmentConfig, named: Named | None) -> dict[str, Any]:
    """What decides the masks, beside what each way of making them adds."""
    every: dict[str, dict[str, Any]] = {
        "bootstrap": {
            "group_size": config.masks.group_size,
            "position": config.masks.position,
            "crf": asdict(config.masks.crf) if config.crf else None,
        },
        "grid": {"grid": config.masks.grid},
        "felzenszwalb": asdict(config.masks.felzenszwalb),
        "selective-search": asdict(config.masks.selective_search),
        "ground-truth": {"truth": config.masks.truth},
    }
    masks = every.get(config.source, {})
    weights = None if named is None else (named.hash or f"{named.weights} {config.seed}")
    export = [name for name in config.export if name != "none"]
    more = (
        {"layers": list(_layers(config, named)), "short_side": config.short_side, "border": config.masks.border}
        if config.source == "bootstrap"
        else {}
    )
    return {"weights": weights, "masks": masks, "export": export, "min_area": config.min_area, **more}


def _source(
    config: SegmentConfig, k: int, images: Images, named: Named | None, layers: tuple[str, ...], device: str
) -> MaskSource:
    masks = config.masks
    if config.source == "bootstrap":
        assert named is not None
        bootstrapping = _bootstrapping(named) or Bootstrapping()
        return Bootstrap(
            Features(named.backbone, layers, torch.device(device), masks.border),
            clusters=(k, k) if k else bootstrapping.clusters,
            group_size=masks.group_size,
            short_side=config.short_side,
            position=masks.position,
            crf=masks.crf if config.crf else None,
            iterations=bootstrapping.iterations,
            device=device,
        )
    assert config.source != "clusters"
    made = fixed_source(replace(masks, source=config.source), images)
    assert made is not None
    return made


def _exports(config: SegmentConfig, images: ScannedImages) -> Callable[[int], Sequence[Export]]:
    """Number of clusters (0: labels of a photo's own) -> the writers that were asked for."""
    folder = Path(images.root).resolve().name

    def make(clusters: int) -> Sequence[Export]:
        every: dict[str, Callable[[], Export]] = {
            "coco": lambda: CocoInstances(clusters, min_area=config.min_area),
            "panoptic": lambda: CocoPanoptic(clusters),
            "label-studio": lambda: LabelStudio(clusters, folder=folder, about=f"cyborgs segment, {config.source}"),
        }
        return [every[name]() for name in dict.fromkeys(config.export) if name != "none"]

    return make
