"""What ``import cyborgs`` offers: training with its monitors, segmenting, evaluating, looking ahead, the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, TextIO

import torch

from cyborgs.data.images import Images
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.log import moving
from cyborgs.engine.recipe import Recipe
from cyborgs.engine.recipe_file import from_dict
from cyborgs.errors import UserError, printable
from cyborgs.evaluation.labelled import read_list
from cyborgs.evaluation.linear_segmentation import ProbeResult, linear_segmentation
from cyborgs.evaluation.segment import segment as segment_images
from cyborgs.methods.config import CyborgsConfig
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone, read_metadata
from cyborgs.seeds import derive

if TYPE_CHECKING:
    from cyborgs.engine.callback import Callback
    from cyborgs.engine.run import Run


def pretrain(
    recipe: Recipe,
    *,
    data: str | Path,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    stream: TextIO | None = None,
) -> Run:
    """Pretrain on a folder or list of photos, with the monitors that the recipe asks for.

    Args:
        recipe: what to do; with ``resume`` it must agree with the run's recipe.yaml.
        data: a folder (searched recursively) or a text file with a path a line.
        out: the run's folder.
        resume: go on from the last checkpoint.
        callbacks: called by the trainer, after the monitors.
        stream: where progress is written; default stderr.

    Raises:
        UserError: the input is at fault; says what to do.
        Stopped: interrupted, after a checkpoint was written.
    """
    # The trainer, which the other functions do without, takes a second to load.
    from cyborgs.engine import run
    from cyborgs.evaluation.monitors import monitors

    every = [*monitors(recipe, data, out), *callbacks]
    return run.pretrain(recipe, data=data, out=out, resume=resume, callbacks=every, stream=stream)


def read_photos(data: str | Path) -> Images:
    """Scan a folder or list of photos, with a bar in a terminal.

    Raises:
        UserError: nothing there, or nothing readable.
    """
    with moving("reading photos") as progress:
        return Images.from_scan(scan(list_images(data), progress=progress))


def clustered_layers(checkpoint: str | Path, backbone: Backbone) -> tuple[str, ...]:
    """The layers that the checkpoint's recipe clusters, or the network's default."""
    recipe = read_metadata(checkpoint).get("recipe")
    method = from_dict(recipe).method if recipe else None
    if isinstance(method, CyborgsConfig) and method.clustered_layers:
        return method.clustered_layers
    return (backbone.default_clustered(),)


def segment(
    photos: str | Path,
    *,
    checkpoint: str | Path,
    out: str | Path,
    clusters: int = 27,
    layers: Sequence[str] = (),
    short_side: int = 0,
    seed: int = 0,
    overlays: bool = True,
) -> None:
    """Cluster the features of all photos together: label PNGs at the photos' size, overlays, shares of each cluster.

    Args:
        photos: a folder or list of photos.
        checkpoint: a run's folder or a backbone.safetensors.
        out: folder for ``labels/``, ``overlays/``, ``palette.json`` and ``segments.csv``.
        clusters: 2 to 256; one id space for all photos.
        layers: what is clustered; none: as in the checkpoint's recipe.
        short_side: longest allowed short side for the network, in pixels; 0: native size.
        seed: of the clustering.
        overlays: write them too.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    if not 2 <= clusters <= 256:
        raise UserError(f"clusters: need 2 to 256 (a label map is 8-bit), got {clusters}")
    backbone = load_backbone(checkpoint)
    images = read_photos(photos)
    with moving("segmenting") as progress:
        segment_images(
            images,
            backbone,
            out,
            layers=tuple(layers) or clustered_layers(checkpoint, backbone),
            clusters=clusters,
            seed=seed,
            short_side=short_side,
            overlays=overlays,
            progress=progress,
        )
    labels = printable(str(Path(out) / "labels"))
    print(f"{len(images)} photos in {clusters} clusters, {len(images.skipped)} files skipped: {labels}")
    for name, reason in images.skipped[:10]:
        print(printable(f"  skipped {name}: {reason}"))


def random_like(backbone: Backbone, seed: int = 0) -> Backbone:
    """The same architecture with random weights, in eval mode."""
    torch.manual_seed(derive(seed, "weights"))
    return Backbone(replace(backbone.config, init=""), backbone.layers).eval()


def evaluate(
    backbone: str | Path,
    *,
    train: str | Path,
    val: str | Path,
    classes: int,
    ignore: int | None = 255,
    layers: Sequence[str] = (),
    seeds: int = 1,
    random_baseline: bool = True,
    out: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Linear segmentation of frozen maps: a probe for each layer alone and one for all together.

    Args:
        backbone: a run's folder or a backbone.safetensors.
        train: list of 'image label' lines that the probes learn from.
        val: list of 'image label' lines that they are measured on.
        classes: labels 0 to ``classes - 1``.
        ignore: label that does not count.
        layers: what is probed; none: the first and last of the fused layers, and all of them together.
        seeds: probes with other orders of the photos.
        random_baseline: probe random weights of the same architecture too.
        out: JSON file for the figures.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    pretrained = load_backbone(backbone)
    fused = pretrained.default_layers()
    probes = [[name] for name in layers] or [[fused[0]], [fused[-1]]]
    together = list(layers) if layers else list(fused)
    if len(together) > 1:
        probes.append(together)
    sets = [read_list(path, classes=classes, ignore=ignore) for path in (train, val)]
    networks = {"pretrained": pretrained} | ({"random": random_like(pretrained)} if random_baseline else {})
    rows: list[dict[str, Any]] = []
    for name, network in networks.items():
        with moving(f"{name} weights") as progress:
            found = linear_segmentation(network, *sets, layers=probes, seeds=range(seeds), progress=progress)
        rows += [{"weights": name, **result.as_dict()} for result in found]
        _print_probes(name, found)
    if out is not None:
        Path(out).write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def _print_probes(name: str, results: Sequence[ProbeResult]) -> None:
    for layers in dict.fromkeys(r.layers for r in results):
        scores = [r.miou for r in results if r.layers == layers]
        spread = f" +- {stdev(scores):.4f} ({len(scores)} seeds)" if len(scores) > 1 else ""
        print(f"{name:<11} {'+'.join(layers):<24} mIoU {mean(scores):.4f}{spread}")


def report(
    run: str | Path, *, data: str | Path | None = None, truth: str | Path | None = None, out: str | Path | None = None
) -> Path:
    """Write the page of a run, finished or going on, with the nearest neighbours of some regions; its path.

    Args:
        run: the run's folder.
        data: the photos it was pretrained on; None: no pictures.
        truth: folder with the truth of photo ``a/b.jpg`` as ``a/b.png``.
        out: the page; ``report.html`` in the run's folder by default.

    Raises:
        UserError: no run there, other photos than the run's, or a page that would lie among the photos.
    """
    from cyborgs.evaluation.of_run import neighbours_of_run
    from cyborgs.recipes import RECIPES
    from cyborgs.report.page import report as write

    return write(run, data=data, truth=truth, out=out, recipes=RECIPES, find=neighbours_of_run)
