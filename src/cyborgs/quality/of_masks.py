"""Masks that are there already, measured: maps and annotations are opened, compared, and the result is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.open import open_truth
from cyborgs.data.images import ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.log import moving
from cyborgs.errors import printable
from cyborgs.quality import files as quality_files
from cyborgs.quality.measure import NO_CLASSES, Quality, QualitySettings, measure
from cyborgs.quality.picture import draw
from cyborgs.quality.predictions import PICTURE, open_predictions

if TYPE_CHECKING:
    from cyborgs.data.annotations.truth import Truth


def truth_of(spec: str | Path, names: Sequence[str], void: int | None) -> Truth:
    """Annotations of these photos. UserError where there are none, or of no known layout."""
    return open_truth(str(spec), names, void=void)


def truth_map(truth: Truth, i: int) -> tuple[NDArray[np.int32] | None, tuple[str, ...]]:
    """What a picture shows of photo i's truth: its classes and their names, or its regions; None where there is none."""
    if i in truth.missing:
        return None, ()
    if truth.kind in NO_CLASSES:
        return truth.regions(i), ()
    return truth.classes(i), truth.class_names


def photos_of(images: str | Path) -> ScannedImages:
    """Scan a folder or list of photos, with a bar in a terminal."""
    with moving("reading photos") as progress:
        return ScannedImages.from_scan(scan(list_images(images), progress=progress))


def quality(
    masks: str | Path,
    *,
    truth: str | Path,
    settings: QualitySettings | None = None,
    out: str | Path | None = None,
    data: str | Path | None = None,
    generation: int | None = None,
    void: int | None = 255,
    same_ids: bool = False,
    class_names: Sequence[str] = (),
    workers: int = 0,
) -> Quality:
    """Measure label maps against annotations: tables, quality.json, photos.csv, classes.csv and quality.png.

    Args:
        masks: what ``cyborgs segment`` wrote, a run's folder, or a folder of label PNGs.
        truth: annotations: a folder of label PNGs, or KIND:PATH.
        settings: what is measured, and how (``evaluation.quality.QualitySettings``).
        out: folder for what is written; none: ``quality`` in the segmentation or run, beside a folder of PNGs.
        data: folder or list of the photos that must have a map; they are shown in the picture.
        generation: of a run's masks; none: the newest.
        void: label of pixels that count nowhere, in annotations that are plain PNGs.
        same_ids: labels mean the same in all photos, although nothing beside the maps says so.
        class_names: of class 0, 1, ...; none: those of the annotations.
        workers: threads; 0: as many as cores.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    settings = settings or QualitySettings()
    photos = None if data is None else photos_of(data)
    names = None if photos is None else [photos.name(i) for i in range(len(photos))]
    maps = open_predictions(masks, generation=generation, same_ids=same_ids, names=names)
    known = truth_of(truth, maps.names, void)
    with moving("measuring masks") as progress:
        found = measure(maps, known, settings, class_names=class_names, workers=workers, progress=progress)
    folder = maps.out if out is None else Path(out)
    about = {
        "predictions": {
            "path": printable(str(masks)),
            "kind": maps.kind,
            "ids": maps.ids,
            "void": maps.void,
            **maps.about,
        },
        "truth": {"path": printable(str(truth)), "kind": known.kind, "void": void},
    }
    quality_files.write(found, settings, about, folder)
    by_class = settings.against == "classes"
    draw(
        found,
        folder / PICTURE,
        maps=maps.read,
        truths=known.classes if by_class else lambda i: known.annotators(i)[0],
        photos=None if photos is None else photos.read,
        title=printable(f"{masks} against {truth}: {len(found.names)} photos"),
    )
    quality_files.tell(found, settings)
    tables = "photos.csv, classes.csv" if found.classes else "photos.csv"
    print(printable(f"Written: {folder} (quality.json, quality.png, {tables})"))
    return found
