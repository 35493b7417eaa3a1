"""Predicted label maps, wherever they lie: what ``cyborgs segment`` wrote, a folder of PNGs, a run's generations."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.png import read_numbers
from cyborgs.data.images import ScannedImages
from cyborgs.data.store_format import StoreError
from cyborgs.errors import UserError
from cyborgs.masks.folder import masks_folder
from cyborgs.masks.store import MaskStore

Ids = Literal["dataset", "group", "photo", "unknown"]
"""Where two equal labels mean the same: in all photos, in a group clustered together, in one photo alone."""

RESULT: Final = "quality.json"
PICTURE: Final = "quality.png"
"""No label map where it lies beside ``RESULT``."""


@dataclass(frozen=True)
class Predictions:
    """Label maps of photos, by number."""

    names: Sequence[str]
    """Of the photos, as annotations know them."""
    kind: str
    """``segmentation``, ``folder`` or ``run``."""
    read: Callable[[int], NDArray[np.integer]]
    """The map of photo i, (h, w) whole numbers of at least 0. UserError where it is damaged or no label map."""
    out: Path = Path("quality")
    """Where measurements go if nobody says."""
    ids: Ids = "unknown"
    """Where labels mean the same."""
    void: int | None = None
    """Label of pixels without a prediction, if there is one."""
    missing: Sequence[int] = ()
    """Photos that have no map."""
    size: Callable[[int], tuple[int, int]] | None = None
    """(height, width) of photo i; None: not known, so that the map's own shape must fit the truth's."""
    about: dict[str, Any] = field(default_factory=dict)
    """What they are, for quality.json."""


def open_predictions(
    path: str | Path, *, generation: int | None = None, same_ids: bool = False, names: Sequence[str] | None = None
) -> Predictions:
    """Label maps at ``path``.

    Args:
        path: what ``cyborgs segment`` wrote (segments.csv), a run's folder or its masks/, or a folder of PNGs.
        generation: of a run; None: the newest.
        same_ids: labels mean the same in all photos, although nothing there says so.
        names: the photos that must have a map, in this order; None: those that have one.

    Raises:
        UserError: nothing of the kind there, an unfinished segmentation or generation; says what to do.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder. Give what `cyborgs segment` wrote, a run's folder, or label PNGs.")
    run = next((p for p in (path, path.parent) if _is_run(p) and masks_folder(p) in (path, p / "masks")), None)
    if generation is not None and run is None:
        raise UserError(f"generation: only a run has generations of masks, and {path} holds none.")
    if run is not None:
        found = _of_run(run, generation)
    elif (path / "segments.csv").is_file():
        found = _of_segmentation(path)
    elif (path / "labels").is_dir() and (path / "palette.json").is_file():
        raise UserError(
            f"{path}: segments.csv is missing, so the segmentation was not finished. "
            f"Run it again, or give {path / 'labels'} to measure what is there."
        )
    else:
        found = _of_folder(path)
    if same_ids:
        if found.ids == "group":
            raise UserError(
                f"{path}: labels mean something inside a group of photos alone, so they are not the same in all "
                "photos. Leave --same-ids out."
            )
        found = replace(found, ids="dataset")
    return found if names is None else _only(found, names)


def _is_run(path: Path) -> bool:
    return (path / "images.csv").is_file() and ((path / "masks").is_dir() or (path / "recipe.yaml").is_file())


def _of_run(run: Path, generation: int | None) -> Predictions:
    try:
        store = MaskStore(run, generation)
    except StoreError as error:
        raise UserError(f"{error}") from error
    images = ScannedImages.read_csv(run, run)
    if len(images) != len(store):
        raise UserError(f"{run}: generation {store.generation} has {len(store)} maps, images.csv {len(images)} photos.")
    about = {"generation": store.generation, "manifest": store.manifest}
    names = [images.name(i) for i in range(len(images))]
    # A bootstrapped label means something in its group alone, and other sources' in one photo.
    out = run / "quality" / f"generation-{store.generation:04d}"
    return Predictions(names, "run", store.__getitem__, out, "group", store.void, (), images.size, about)


def _of_segmentation(path: Path) -> Predictions:
    table = path / "segments.csv"
    try:
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = [(row["photo"], row["mask"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as the table of a segmentation ({error}).") from error
    if not rows:
        raise UserError(f"{table}: names no photo.")
    about: dict[str, Any] = {}
    note = path / "segmentation.json"
    if note.is_file():
        try:
            about = json.loads(note.read_text(encoding="utf-8"))
            ids, void = about.get("ids", "unknown"), about.get("void")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{note}: cannot be read ({error}).") from error
        if about.get("complete") is False:
            raise UserError(f"{path}: the segmentation was not finished. Run it again: it goes on where it stopped.")
        if ids not in ("dataset", "group", "photo", "unknown") or not (void is None or isinstance(void, int)):
            raise UserError(f"{note}: ids {ids!r}, void {void!r}: need dataset, group or photo, and a number or null.")
    else:
        ids, void = "unknown", None
    names, files = [photo for photo, _ in rows], [path / mask for _, mask in rows]
    return _of_files(names, files, "segmentation", path / "quality", cast(Ids, ids), void, about)


def _of_folder(path: Path) -> Predictions:
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() == ".png" and p.is_file())
    files = [p for p in files if p.name != PICTURE or not p.with_name(RESULT).is_file()]
    if not files:
        raise UserError(
            f"{path}: no label maps there. Give what `cyborgs segment` wrote, a run's folder, or a folder of label PNGs."
        )
    beside = path.with_name(f"{path.resolve().name}-quality")  # not among somebody's labels
    return _of_files([p.relative_to(path).as_posix() for p in files], files, "folder", beside)


def _of_files(
    names: Sequence[str],
    files: Sequence[Path],
    kind: str,
    out: Path,
    ids: Ids = "unknown",
    void: int | None = None,
    about: dict[str, Any] | None = None,
) -> Predictions:
    missing = [i for i, file in enumerate(files) if not file.is_file()]
    return Predictions(names, kind, lambda i: read_numbers(files[i]), out, ids, void, missing, None, about or {})


def _only(found: Predictions, names: Sequence[str]) -> Predictions:
    """The maps of these photos: of the same name, or else of the same name but for the suffix."""
    exact = {name: i for i, name in enumerate(found.names)}
    plain: dict[str, list[int]] = {}
    for i, name in enumerate(found.names):
        plain.setdefault(_stem(name), []).append(i)
    places: list[int | None] = []
    for name in names:
        alike = plain.get(_stem(name), [])
        # "a.jpg.png" is the mask of a.jpg where there is an a.png too (segmenting/segment.py: mask_names).
        places.append(exact.get(name, exact.get(f"{name}.png", alike[0] if len(alike) == 1 else None)))
    gone = set(found.missing)
    missing = [k for k, i in enumerate(places) if i is None or i in gone]
    read, size = found.read, found.size
    at = [-1 if i is None else i for i in places]
    return replace(
        found,
        names=list(names),
        missing=missing,
        read=lambda k: read(at[k]),
        size=None if size is None else lambda k: size(at[k]),
    )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
