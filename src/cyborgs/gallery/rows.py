"""Label maps of some photos for Figure 4: clusters at full resolution, and the same refined by a CRF."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.images import Images
from cyborgs.engine.log import moving
from cyborgs.errors import UserError, printable
from cyborgs.features.clustering import cluster_photos
from cyborgs.features.extraction import Progress, UInt8
from cyborgs.features.neighbours import spread
from cyborgs.gallery.page import GalleryRow
from cyborgs.looking.of_run import backbone_of
from cyborgs.masks.config import CrfConfig
from cyborgs.masks.crf import refine
from cyborgs.models.named import open_named
from cyborgs.quality.of_masks import truth_map, truth_of
from cyborgs.runs.build import bootstrapped_layers
from cyborgs.runs.recipe_file import from_dict, load

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone
    from cyborgs.runs.recipe import Recipe

Refine = Callable[[UInt8, NDArray[np.float32]], UInt8]
"""Photo (H, W, 3) and cosines (K, H, W) -> labels (H, W), of the same K."""


def gallery_rows(
    checkpoint: Path,
    photos: Images,
    *,
    truth: str | Path | None = None,
    count: int = 6,
    names: Sequence[str] = (),
    clusters: int = 27,
    fit: int = 256,
    layers: Sequence[str] = (),
    short_side: int = 0,
    crf: bool = True,
    void: int | None = 255,
    seed: int = 0,
) -> tuple[list[GalleryRow], list[str]]:
    """The rows of some photos, and sentences: from which weights, and what was left out. As ``api.gallery``.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    if not 2 <= clusters <= 256:
        raise UserError(f"clusters: need 2 to 256 (a label map is 8-bit), got {clusters}")
    shown = chosen(photos, names, count)
    backbone, weights, usual = network(checkpoint, seed)
    of = photos.subset(shown)
    known = None if truth is None else truth_of(truth, [of.name(i) for i in range(len(of))], void)
    used = tuple(layers) or usual
    refine, missing = refiner() if crf else (None, "")
    with moving("making the gallery") as progress:
        maps = gallery_maps(
            backbone,
            photos,
            shown,
            layers=used,
            clusters=clusters,
            fit=fit,
            short_side=short_side,
            seed=seed,
            refine=refine,
            progress=progress,
        )
    rows = []
    for place, (labels, refined) in enumerate(maps):
        real, called = (None, ()) if known is None else truth_map(known, place)
        rows.append(GalleryRow(of.name(place), of.read(place), labels, refined, real, called))
    said = [
        f"{clusters} clusters of {len(fitted_photos(len(photos), shown, fit))} photos, on {' + '.join(used)} of {weights}."
    ]
    return rows, said + ([missing] if missing else [])


def chosen(photos: Images, names: Sequence[str], count: int) -> list[int]:
    """Numbers of the named photos, or of ``count`` evenly spread ones.

    Raises:
        UserError: a name that is none of the photos'.
    """
    if not names:
        if count < 1:
            raise UserError(f"count: need at least 1 photo, got {count}.")
        return spread(len(photos), count)
    known = {photos.name(i): i for i in range(len(photos))}
    for name in names:
        if name not in known:
            some = ", ".join(printable(n) for n in list(known)[:3])
            raise UserError(f"photos: {name} is none of the {len(known)} photos (they are named {some}, ...).")
    return [known[name] for name in names]


def fitted_photos(count: int, shown: Sequence[int], fit: int) -> list[int]:
    """Numbers of the photos that are clustered: those shown, and evenly spread others up to ``fit`` in all."""
    others = [i for i in range(count) if i not in set(shown)]
    more = min(len(others), max(0, fit - len(set(shown))))
    return sorted({*shown, *(others[i] for i in spread(len(others), more))})


def gallery_maps(
    backbone: Backbone,
    photos: Images,
    shown: Sequence[int],
    *,
    layers: Sequence[str],
    clusters: int,
    fit: int = 256,
    short_side: int = 0,
    seed: int = 0,
    refine: Refine | None = None,
    progress: Progress | None = None,
) -> list[tuple[UInt8, UInt8 | None]]:
    """One clustering of ``fit`` photos, those shown among them; clusters and refined map (H, W) of each of those shown.

    Args:
        backbone: the network.
        photos: all there are.
        shown: numbers of those whose maps are made.
        layers: what is clustered.
        clusters: K, 2 to 256.
        fit: photos that are clustered, at most: evenly spread ones beside those shown.
        short_side: as in ``cluster_photos``.
        seed: of the clustering.
        refine: makes the refined maps; None: there are none.
        progress: called with photos done and in all.
    """
    fitted = fitted_photos(len(photos), shown, fit)
    total = len(fitted) + len(shown)
    first: Progress | None = None if progress is None else lambda done, _: progress(done, total)
    found = cluster_photos(
        backbone,
        photos.subset(fitted),
        [clusters],
        layers=layers,
        short_side=short_side,
        seed=seed,
        progress=first,
    )[clusters]
    maps = []
    for place, number in enumerate(shown):
        image = photos.read(number)
        pixels = found.of_pixels(backbone, image)
        refined = None if refine is None else refine(image, pixels.cosines())
        maps.append((pixels.labels()[0], refined))
        if progress is not None:
            progress(len(fitted) + place + 1, total)
    return maps


def refiner() -> tuple[Refine | None, str]:
    """The CRF with its usual settings; or none, and a sentence that says why."""
    if find_spec("pydensecrf") is None:
        return None, (
            "The column of the CRF is left out: it needs the extra crf (pip install 'cyborgs[crf]', with a compiler)."
        )
    return partial(refine, config=CrfConfig(enabled=True)), ""


def network(checkpoint: str | Path, seed: int = 0) -> tuple[Backbone, str, tuple[str, ...]]:
    """The backbone of a run, finished or going on, or of what else ``open_named`` takes; its name; the layers to cluster.

    Raises:
        UserError: none there, or it cannot be read.
    """
    run = Path(checkpoint) / "recipe.yaml"
    if run.is_file():
        backbone, name = backbone_of(Path(checkpoint))
        recipe: Recipe | None = load(run)
    else:
        named = open_named(checkpoint, seed=seed)
        backbone, name = named.backbone, printable(named.weights)
        recipe = from_dict(named.recipe) if named.recipe else None
    return backbone, name, bootstrapped_layers(recipe.method.bootstrapping if recipe else None, backbone)
