"""The demo: scenes with known truth, a run on them, what it learned, one page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cyborgs.data.annotations.open import open_truth
from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.data.scenes import Scenes, write_scenes
from cyborgs.engine.log import moving
from cyborgs.evaluation.dense.linear import linear_segmentation, maps_of_both
from cyborgs.evaluation.sets.pixel_sets import read_list
from cyborgs.features.clustering import cluster_photos
from cyborgs.files import write_bytes
from cyborgs.looking.monitors import monitors
from cyborgs.looking.of_run import neighbours_of_run
from cyborgs.masks.store import MaskStore
from cyborgs.models.weights import load_backbone
from cyborgs.quality.measure import Quality, QualitySettings, measure
from cyborgs.quality.predictions import Predictions
from cyborgs.recipes import RECIPES
from cyborgs.report.render import render
from cyborgs.runs.pretrain import Run, pretrain
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.recipe_file import load

GRID = 5
"""Cells a side of the fixed grid that bootstrapped masks are compared with."""
RESTARTS = 5
"""Clusterings of which the best is taken, so that figures tell features apart rather than lucky starts."""

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


def measure_masks(run: Run, made: Scenes, images: Images) -> dict[str, Any]:
    """One clustering of all scenes at each kept backbone, and the best overlap of each stored generation.

    Labels of a stored generation mean something inside their group alone, so that matching them over the whole data
    set would be wrong: they are judged photo by photo.
    """
    names = [images.name(i) for i in range(len(images))]
    truth = open_truth(f"folder:{made.truth}", names)
    classes = len(made.classes)
    generations = _generation_epochs(run)
    overlaps: dict[str, list[float]] = {}
    grid = np.arange(GRID * GRID, dtype=np.uint8).reshape(GRID, GRID)

    def measured(maps: Callable[[int], Labels], *measures: str) -> Quality:
        predictions = Predictions(names, "demo", maps, ids="dataset", size=images.size)
        return measure(predictions, truth, QualitySettings(measures, background=(), draws=1))

    def matched(maps: Callable[[int], Labels]) -> dict[str, float]:
        found = measured(maps, "hungarian_miou", "hungarian_accuracy").whole
        return {"miou": found["hungarian_miou"].value, "accuracy": found["hungarian_accuracy"].value}

    fixed = measured(lambda i: grid, "abo").means["abo"].value
    first = {"name": f"{GRID}x{GRID} grid", **matched(lambda i: grid), "best_overlap": fixed, "baseline": True}
    rows: list[dict[str, Any]] = [first]
    layer = ""
    for snapshot in sorted((run.folder / "snapshots").glob("epoch-*.safetensors")):
        epoch = int(snapshot.stem.removeprefix("epoch-"))
        backbone = load_backbone(snapshot)
        layer = backbone.default_clustered()
        with moving(f"measuring the masks of epoch {epoch}") as progress:
            found = cluster_photos(backbone, images, [classes], layers=[layer], restarts=RESTARTS, progress=progress)
        labels = [found[classes].of_cells(backbone, images.read(i)) for i in range(len(images))]
        row: dict[str, Any] = {"epoch": epoch, **matched(labels.__getitem__)}
        generation = generations.get(epoch)
        if generation is not None:
            overlap = measured(MaskStore(run.folder, generation).__getitem__, "abo")
            row["best_overlap"] = overlap.means["abo"].value
            overlaps[str(generation)] = [photo.values["abo"] for photo in overlap.photos]
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
            maps = maps_of_both(backbone, train, val, layers, 0, progress)
        for probed in (layers[:1], layers):
            found = linear_segmentation(backbone, train, val, layers=probed, maps=maps)
            rows.append({"name": name, "baseline": name != "pretrained", **found.as_dict()})
    return {"rows": rows, "classes": list(made.classes), "train": len(train), "val": len(val)}
