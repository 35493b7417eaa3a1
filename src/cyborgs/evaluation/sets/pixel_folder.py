"""One's own photos with a class per pixel: lists, folders side by side, or a YAML file that says where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from cyborgs.data.annotations.folder import FolderTruth, ListedLabels
from cyborgs.data.annotations.matching import files_below
from cyborgs.data.annotations.open import open_truth
from cyborgs.data.annotations.truth import Labels, Truth
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.layouts import LABELS, TESTS
from cyborgs.evaluation.sets.lists import lines, listed_pairs, must_exist

EXTRA: Final = "label maps without a photo of these splits"
WITHOUT: Final = "photos that the JSON files do not annotate"


class Classes(Protocol):
    """The part of ``data.annotations.truth.Truth`` that is needed."""

    def classes(self, i: int) -> Labels:
        """Class of each pixel of photo i, void -1."""
        ...

    def place(self, i: int) -> Path:
        """The file with the labels of photo i."""
        ...


@dataclass(frozen=True)
class Annotated:
    """Photos, and their annotations: those of photo i are number i."""

    photos: Sequence[Path]
    annotations: Classes
    missing: Sequence[int] = ()
    """Numbers of photos that have none."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Files that are not used, by reason."""


@dataclass(frozen=True)
class Layout:
    """What a layout says."""

    train: Annotated
    test: Annotated
    classes: int = 0
    """0: one more than the highest label."""
    ignore: int = 255
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def folder(root: Path, classes: int, ignore: int) -> Layout:
    """One's own photos and labels; ``val`` is taken before ``test``. Any of:

    - ``train.txt`` and ``val.txt`` or ``test.txt`` with "photo label" lines (``lists.listed_pairs``).
    - ``images/train``, ``images/val``, and ``labels/train``, ``labels/val`` (or ``annotations/``, ``masks/``).
    - ``train``, ``trainannot``, ``val``, ``valannot``.
    - a YAML file: ``train`` and ``val``, each with ``photos`` (folder or text list) and ``labels`` (a folder of PNGs,
      or KIND:PATH of ``data.annotations.open``), and if wanted ``names`` of the classes; paths relative to the file.
      COCO's JSON files decide themselves which photos are labelled: the others are left out and counted. Of a KIND
      other than a folder ``ignore`` must be 255: it knows its void pixels, and lower numbers may be its classes.

    Names of the classes, one a line, may lie beside them in ``classes.txt``.
    """
    if root.is_file():
        return _described(root, classes, ignore)
    names = tuple(line for _, line in lines(root / "classes.txt")) if (root / "classes.txt").is_file() else ()
    classes = _agreed(root / "classes.txt", classes, names)
    for test in TESTS:
        if (root / "train.txt").is_file() and (root / f"{test}.txt").is_file():
            parts = [listed_pairs(root / f"{part}.txt") for part in ("train", test)]
            first, second = (Annotated(photos, ListedLabels(labels, ignore)) for photos, labels in parts)
            return Layout(first, second, classes, ignore, names)
        for labels in LABELS:
            if all((root / a / b).is_dir() for a in ("images", labels) for b in ("train", test)):
                places = [(root / "images" / part, root / labels / part) for part in ("train", test)]
                return folders(places, classes, ignore, names)
        if all((root / f"{part}{tail}").is_dir() for part in ("train", test) for tail in ("", "annot")):
            places = [(root / part, root / f"{part}annot") for part in ("train", test)]
            return folders(places, classes, ignore, names)
    raise UserError(
        f"{root}: need train.txt and val.txt with 'photo label' lines, or images/train, images/val, labels/train and "
        "labels/val, or train, trainannot, val and valannot, or give a YAML file (docs/evaluation.md)."
    )


def folders(places: Sequence[tuple[Path, Path]], classes: int, ignore: int, names: tuple[str, ...]) -> Layout:
    """Of (folder of photos, folder of their label PNGs), for train and test."""
    splits = []
    for photos, labels in places:
        listing = list_images(photos).names
        splits.append(annotated(photos, listing, FolderTruth(labels, listing, void=ignore), labels))
    return Layout(splits[0], splits[1], classes, ignore, names)


def annotated(root: Path, names: Sequence[str], truth: Truth, labels: Path | None = None) -> Annotated:
    """The photos ``root / name`` and their annotations; ``labels``: a folder whose other PNGs are counted."""
    extra = 0 if labels is None else len(files_below(labels, ".png")) - (len(names) - len(truth.missing))
    return Annotated([root / name for name in names], truth, truth.missing, {EXTRA: extra})


def _agreed(where: Path, classes: int, names: Sequence[str]) -> int:
    if names and classes and len(names) != classes:
        raise UserError(f"{where}: names {len(names)} classes, but classes is {classes}.")
    return classes or len(names)


def _described(path: Path, classes: int, ignore: int) -> Layout:
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(said, dict) or "train" not in said or not set(said) <= {"train", "val", "test", "names"}:
        raise UserError(f"{path}: need train and val (or test), and if wanted names; nothing else.")
    test = next((name for name in TESTS if name in said), None)
    if test is None:
        raise UserError(f"{path}: need val or test beside train.")
    names = said.get("names") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: names: need a list of class names.")
    parts = [_described_part(path, part, said[part], ignore) for part in ("train", test)]
    known = [found for _, found in parts if found]
    if len(known) == 2 and known[0] != known[1]:
        raise UserError(f"{path}: the labels of train and {test} have other classes: {_difference(*known)}.")
    found = tuple(names) or (known[0] if known else ())
    return Layout(parts[0][0], parts[1][0], _agreed(path, classes, found), ignore, found)


def _difference(a: Sequence[str], b: Sequence[str]) -> str:
    return next((f"{x!r} and {y!r}" for x, y in zip(a, b, strict=False) if x != y), f"{len(a)} and {len(b)} of them")


def _described_part(path: Path, part: str, said: Any, ignore: int) -> tuple[Annotated, tuple[str, ...]]:
    if not isinstance(said, dict) or set(said) != {"photos", "labels"} or not all(map(_text, said.values())):
        raise UserError(f"{path}: {part}: need photos (a folder or list) and labels (a folder, or KIND:PATH).")
    listing = list_images(path.parent / said["photos"])
    truth = open_truth(said["labels"], listing.names, path.parent, void=ignore)
    if truth.kind != "folder" and ignore != 255:
        raise UserError(
            f"{path}: {part}: {said['labels']} says itself which pixels count nowhere; leave --ignore out (got {ignore})."
        )
    found = annotated(Path(listing.root), listing.names, truth)
    must_exist(path, found.photos, "")
    if truth.kind == "coco" and truth.missing:
        lacking = set(truth.missing)
        kept = [name for i, name in enumerate(listing.names) if i not in lacking]
        truth = open_truth(said["labels"], kept, path.parent, void=ignore)
        found = replace(annotated(Path(listing.root), kept, truth), left_out={WITHOUT: len(lacking)})
    return found, truth.class_names


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
