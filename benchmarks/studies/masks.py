"""Which masks fit what people see? Every source on BSDS500, CamVid and COCO, and a run's masks as it learns.

    python benchmarks/studies/masks.py PHOTOS RUN [--out runs/masks] [--photos 100] [--crf 20] [--table]

PHOTOS holds ``BSDS500/data``, ``CamVid`` and ``coco`` in their published layouts. First table: whole photo, 5x5 grid,
Felzenszwalb, selective search, and 27 clusters of a random network of RUN's kind and of RUN, on BSDS val, CamVid val and
COCO val (panoptic), photos that RUN should not have seen. Second table: the generations of RUN's store and bootstrapping
with its final weights, on those of its own photos that are annotated. ``--crf`` photos of each are refined too (slow).
What is finished is kept as JSON below ``--out``, so the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cyborgs
from cyborgs.data.annotations.open import open_truth
from cyborgs.data.annotations.truth import Truth
from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.palette import nearest
from cyborgs.masks.config import CrfConfig
from cyborgs.masks.crf import marginals
from cyborgs.models.weights import read_metadata
from cyborgs.quality.measure import Quality, QualitySettings, measure
from cyborgs.quality.predictions import Predictions, open_predictions

MEASURES = ("covering", "rand", "voi", "asa", "boundary_f")
SET = ("hungarian_miou", "majority_miou")
CLUSTERS = 27


@dataclass(frozen=True)
class Data:
    """Photos and their truth, below PHOTOS."""

    photos: str
    truth: str
    void: int | None = 255


VAL = {
    "BSDS val": Data("BSDS500/data/images/val", "bsds:BSDS500/data/groundTruth/val"),
    "CamVid val": Data("CamVid/val", "folder:CamVid/valannot", 11),
    "COCO val": Data("coco/images/val2017", "coco:coco/annotations/panoptic_val2017.json"),
}
TRAIN = {
    "BSDS train": Data("BSDS500/data/images/train", "bsds:BSDS500/data/groundTruth/train"),
    "CamVid train": Data("CamVid/train", "folder:CamVid/trainannot", 11),
    "COCO train": Data("coco/images/train2017", "coco:coco/annotations/panoptic_train2017.json"),
}


def truth_of(data: Data, root: Path, names: Sequence[str]) -> Truth:
    return open_truth(data.truth, names, root, void=data.void)


def listed(name: str, data: Data, root: Path, out: Path, most: int) -> Path:
    """A list of evenly spread annotated photos."""
    path = out / f"{name.replace(' ', '-')}.txt"
    names = list_images(root / data.photos).names
    lacking = set(truth_of(data, root, names).missing)
    known = [n for i, n in enumerate(names) if i not in lacking]
    chosen = [known[i] for i in np.unique(np.linspace(0, len(known) - 1, min(most, len(known))).astype(int))]
    path.write_text("".join(f"{(root / data.photos / n).resolve()}\n" for n in chosen))
    return path


def figures(quality: Quality) -> dict[str, Any]:
    found = {name: [v.value, v.low, v.high] for name, v in {**quality.means, **quality.whole}.items()}
    return {"figures": found, "photos": len(quality.names)}


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What an earlier start found, else made now."""
    if not path.is_file():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def segmented(listing: Path, folder: Path, name: str, data: Data, root: Path, **options: Any) -> dict[str, Any]:
    """Masks by ``cyborgs.segment``, timed with the writing of their PNGs, and measured."""
    begun = time.perf_counter()
    cyborgs.segment(listing, out=folder, overlays=False, export=(), overwrite=True, **options)
    seconds = time.perf_counter() - begun
    predictions = open_predictions(folder)
    quality = measure(predictions, truth_of(data, root, predictions.names), QualitySettings((*MEASURES, *SET)))
    return {**figures(quality), "seconds": seconds / len(predictions.names), "regions": regions(predictions)}


def regions(predictions: Predictions) -> float:
    return float(np.mean([len(np.unique(predictions.read(i))) for i in range(len(predictions.names))]))


def sources(arguments: argparse.Namespace, out: Path) -> str:
    metadata = read_metadata(arguments.run / "backbone.safetensors")
    network = metadata["recipe"]["backbone"]["name"]
    layers = metadata["recipe"]["method"]["clustered_layers"] or ()
    ways: dict[str, dict[str, Any]] = {
        "whole photo": {"source": "whole"},
        "grid 5 x 5": {"source": "grid"},
        "Felzenszwalb": {"source": "felzenszwalb"},
        "selective search": {"source": "selective-search"},
        "clusters, random": {"checkpoint": f"random:{network}", "clusters": CLUSTERS, "layers": layers},
        "clusters, the run": {"checkpoint": str(arguments.run), "clusters": CLUSTERS},
    }
    lines = ["| photos | masks | " + " | ".join(MEASURES) + " | " + " | ".join(SET) + " | labels a photo | s a photo |"]
    lines.append("|---" * (4 + len(MEASURES) + len(SET)) + "|")
    for name, data in VAL.items():
        cases = [(way, options, arguments.photos) for way, options in ways.items()]
        if arguments.crf:
            some = f" ({arguments.crf} photos)"
            cases.append((f"clusters, the run{some}", ways["clusters, the run"], arguments.crf))
            cases.append((f"the same and CRF{some}", {**ways["clusters, the run"], "crf": True}, arguments.crf))
        for way, options, most in cases:
            key = f"{name} {way}".replace(" ", "-").replace(",", "").replace("(", "").replace(")", "")
            listing = listed(f"{name} {most}", data, arguments.root, out, most)

            def make(
                listing: Path = listing, key: str = key, data: Data = data, options: dict[str, Any] = options
            ) -> dict[str, Any]:
                return segmented(listing, out / key, key, data, arguments.root, **options)

            if arguments.table and not (out / f"{key}.json").is_file():
                continue
            found = kept(out / f"{key}.json", make)
            lines.append(
                f"| {name} | {way} | {cells(found, (*MEASURES, *SET))} | {found['regions']:.1f} | {found['seconds']:.2f} |"
            )
    return "\n".join(lines)


def cells(found: dict[str, Any], measures: Sequence[str]) -> str:
    def cell(name: str) -> str:
        if name not in found["figures"] or found["figures"][name][0] is None:
            return ""
        value, low, high = found["figures"][name]
        return f"{value:.3f} ± {(high - low) / 2:.3f}"

    return " | ".join(cell(name) for name in measures)


def stages(arguments: argparse.Namespace, out: Path) -> str:
    """The store's generations, and bootstrapping with the final weights, with and without CRF."""
    images = ScannedImages.read_csv(arguments.run, "/")
    store = cyborgs.MaskStore(arguments.run)
    lines = [
        "| photos | masks | CRF | " + " | ".join(MEASURES) + " | labels a photo |",
        "|---" * (4 + len(MEASURES)) + "|",
    ]
    for name, data in TRAIN.items():
        paths = set(
            listed(f"{name} {arguments.photos}", data, arguments.root, out, arguments.photos).read_text().split("\n")
        )
        own = [i for i in range(len(images)) if str(Path("/", images.name(i)).resolve()) in paths]
        some = own[:: max(1, len(own) // arguments.crf)][: arguments.crf] if arguments.crf else []
        for generation in [*store.generations(), -1]:
            label = "end" if generation < 0 else f"generation {generation}"
            for crf, chosen in ((False, own), *(((False, some), (True, some)) if some else ())):
                key = f"{name} {label} {len(chosen)} {'crf' if crf else 'plain'}".replace(" ", "-")

                def make(
                    chosen: list[int] = chosen, generation: int = generation, crf: bool = crf, data: Data = data
                ) -> dict[str, Any]:
                    return staged(arguments, images, chosen, generation, crf, data)

                if arguments.table and not (out / f"{key}.json").is_file():
                    continue
                found = kept(out / f"{key}.json", make)
                lines.append(
                    f"| {name}, {found['photos']} | {label} | {'yes' if crf else ''} | {cells(found, MEASURES)} | "
                    f"{found['regions']:.1f} |"
                )
    return "\n".join(lines)


def staged(
    arguments: argparse.Namespace, images: Images, chosen: list[int], generation: int, crf: bool, data: Data
) -> dict[str, Any]:
    if generation < 0:
        store = final_masks(arguments, images, chosen)
    else:
        maps = cyborgs.MaskStore(arguments.run, generation)
        store = [maps[i] for i in chosen]

    def read(position: int) -> np.ndarray:
        if not crf:
            return store[position]
        image = images.read(chosen[position])
        return refine_labels(image, nearest(store[position], *image.shape[:2]))

    names = [images.name(i) for i in chosen]
    predictions = Predictions(names, "run", read, ids="group", size=lambda position: images.size(chosen[position]))
    quality = measure(predictions, truth_of(data, arguments.root, names), QualitySettings(MEASURES))
    return {**figures(quality), "regions": float(np.mean([len(np.unique(m)) for m in store]))}


def refine_labels(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The CRF where only labels are known, uint8 (H, W): each has probability 0.7, the others share the rest."""
    present, where = np.unique(labels, return_inverse=True)
    if len(present) == 1:
        return labels.copy()
    costs = np.full((len(present), *labels.shape), -np.log(0.3 / (len(present) - 1)), np.float32)
    np.put_along_axis(costs, where.reshape(1, *labels.shape), -np.log(0.7), 0)
    return np.asarray(present[marginals(image, costs, CrfConfig(enabled=True)).argmax(2)])


def final_masks(arguments: argparse.Namespace, images: Images, chosen: list[int]) -> list[np.ndarray]:
    """Bootstrapping with the final weights: groups of 16 of the chosen photos, K drawn as in the run."""
    import torch

    from cyborgs.masks.bootstrap import Bootstrap
    from cyborgs.methods.settings import Bootstrapping
    from cyborgs.runs.build import Features, bootstrapped_layers
    from cyborgs.runs.recipe_file import load

    recipe = load(arguments.run / "recipe.yaml")
    backbone = cyborgs.load_backbone(arguments.run)
    own = recipe.method.bootstrapping or Bootstrapping()
    layers = bootstrapped_layers(own, backbone)
    source = Bootstrap(
        Features(backbone, layers, torch.device("cpu")),
        clusters=own.clusters,
        short_side=recipe.masks.short_side,
        position=recipe.masks.position,
    )
    maps: dict[int, np.ndarray] = {}
    for number, group in enumerate(source.groups(len(chosen), recipe.seed, 1000)):
        found = source.label([images.read(chosen[i]) for i in group], recipe.seed, 1000, number)
        maps |= {int(i): m.labels for i, m in zip(group, found, strict=True)}
    return [maps[i] for i in range(len(chosen))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="PHOTOS")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, default=Path("runs/masks"))
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--crf", type=int, default=20)
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables of what is there")
    arguments = parser.parse_args()
    arguments.root = arguments.root.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(sources(arguments, arguments.out), stages(arguments, arguments.out), sep="\n\n")
    print("\n± half of the 95% bootstrap interval over photos.")


if __name__ == "__main__":
    main()
