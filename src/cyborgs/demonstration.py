"""The demo: scenes with known truth, a run on them, what it learned, one page."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cyborgs.data.annotations.png import read_numbers
from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.data.scenes import Scenes, write_scenes
from cyborgs.engine.log import moving
from cyborgs.evaluation.dense.linear import linear_segmentation
from cyborgs.evaluation.sets.pixel_sets import read_list
from cyborgs.features.clustering import cluster_miou, map_miou
from cyborgs.files import write_bytes
from cyborgs.looking.monitors import monitors
from cyborgs.looking.of_run import neighbours_of_run
from cyborgs.masks.store import MaskStore
from cyborgs.models.weights import load_backbone
from cyborgs.quality.overlap import mean_best_overlap
from cyborgs.recipes import RECIPES
from cyborgs.report.render import render
from cyborgs.runs.pretrain import Run, pretrain
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.recipe_file import load

GRID = 5
"""Cells a side of the fixed grid that bootstrapped masks are compared with."""

Labels = np.ndarray[Any, np.dtype[np.uint8]]


def demo(recipe: Recipe, *, out: str | Path, scenes: int = 320) -> Path:
    """Make scenes, pretrain (or go on), measure masks and backbone, write the report; the path of the report.

    Args:
        recipe: with ``snapshot_refreshes``, so that every stage can be measured.
        out: folder; ``scenes/`` and ``run/`` are made in it.
        scenes: how many.
    """
    out = Path(out)
    made = write_scenes(out / "scenes", scenes, recipe.seed)
    begun = (out / "run" / "recipe.yaml").exists()
    looking = monitors(recipe, made.photos, out / "run")
    run = pretrain(recipe, data=made.photos, out=out / "run", resume=begun, callbacks=looking)
    images = ScannedImages.from_scan(scan(list_images(made.photos)))
    quality = measure_masks(run, made, images)
    write_bytes(run.folder / "quality.json", (json.dumps(quality, indent=1) + "\n").encode())
    probe = measure_probe(run, made)
    write_bytes(run.folder / "probe.json", (json.dumps(probe, indent=1) + "\n").encode())
    return render(
        run.folder,
        photos=images,
        truth=made.truth,
        quality=quality,
        probe=probe,
        neighbours=neighbours_of_run(run.folder, images),
        recipes=RECIPES,
    )


def _truths(made: Scenes, images: Images) -> Callable[[int], Labels]:
    @cache
    def truth(i: int) -> Labels:
        return read_numbers(made.truth / Path(images.name(i)).with_suffix(".png")).astype(np.uint8)

    return truth


def measure_masks(run: Run, made: Scenes, images: Images) -> dict[str, Any]:
    """One clustering of all scenes at each kept backbone, and the best overlap of each stored generation.

    Labels of a stored generation mean something inside their group alone, so that matching them over the whole data
    set would be wrong: they are judged photo by photo.
    """
    truth = _truths(made, images)
    classes = len(made.classes)
    generations = _generation_epochs(run)
    overlaps: dict[str, list[float]] = {}
    rows: list[dict[str, Any]] = []
    grid = np.arange(GRID * GRID, dtype=np.uint8).reshape(GRID, GRID)
    fixed = map_miou(lambda i: grid, truth, len(images), classes=classes)
    overlap = mean_best_overlap(lambda i: grid, truth, len(images))
    rows.append(
        {
            "name": f"{GRID}x{GRID} grid",
            "miou": fixed.miou,
            "accuracy": fixed.accuracy,
            "best_overlap": overlap.mean,
            "baseline": True,
        }
    )
    layer = ""
    for snapshot in sorted((run.folder / "snapshots").glob("epoch-*.safetensors")):
        epoch = int(snapshot.stem.removeprefix("epoch-"))
        backbone = load_backbone(snapshot)
        layer = backbone.default_clustered()
        with moving(f"measuring the masks of epoch {epoch}") as progress:
            score = cluster_miou(backbone, images, truth, layers=[layer], classes=classes, progress=progress)
        row: dict[str, Any] = {"epoch": epoch, "miou": score.miou, "accuracy": score.accuracy}
        generation = generations.get(epoch)
        if generation is not None:
            store = MaskStore(run.folder, generation)
            overlap = mean_best_overlap(store.__getitem__, truth, len(images))
            row["best_overlap"] = overlap.mean
            overlaps[str(generation)] = list(overlap.per_photo)
        rows.append({"name": _stage(epoch, generation, _epochs(run)), **row})
    return {
        "rows": rows,
        "classes": list(made.classes),
        "k": classes,
        "layers": [layer],
        "scenes": len(images),
        "regions": "components",
        "overlaps": overlaps,
    }


def _epochs(run: Run) -> int:
    return load(run.folder / "recipe.yaml").epochs


def _generation_epochs(run: Run) -> dict[int, int]:
    """Epoch -> generation of masks made at its beginning."""
    return {line["epoch"]: line["cycle"] for line in run.metrics if line.get("refresh") == "masks"}


def _stage(epoch: int, generation: int | None, epochs: int) -> str:
    if generation is not None:
        return "after warm-up, generation 0" if generation == 0 else f"generation {generation}"
    return "end" if epoch == epochs else "random weights" if epoch == 0 else f"epoch {epoch}"


def measure_probe(run: Run, made: Scenes) -> dict[str, Any]:
    """A linear probe on frozen maps, of the weights before and after pretraining."""
    train, val = (read_list(path, classes=len(made.classes), names=made.classes) for path in (made.train, made.val))
    first = sorted((run.folder / "snapshots").glob("epoch-*.safetensors"))[0]
    rows: list[dict[str, Any]] = []
    for name, backbone in (("random weights", load_backbone(first)), ("pretrained", run.backbone)):
        layers = backbone.default_layers()
        with moving(f"probing {name}") as progress:
            results = linear_segmentation(backbone, train, val, layers=[[layers[0]], list(layers)], progress=progress)
        rows += [{"name": name, "baseline": name != "pretrained", **r.as_dict()} for r in results]
    return {"rows": rows, "classes": list(made.classes), "train": len(train), "val": len(val)}
