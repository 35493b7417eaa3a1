"""Photos with a class each, split into train and test: a folder in any of four layouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from cyborgs.data.images import PhotoFiles
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.labelled import Classified, Split, check_apart, check_once
from cyborgs.evaluation.sets.layouts import TESTS, parts_of_layouts
from cyborgs.evaluation.sets.lists import lines, listed, must_exist
from cyborgs.evaluation.sets.splits import stratified

ClassifiedData = Split[Classified]
Found = tuple[list[Path], list[str]]
"""Photos, and the name of each one's class."""
_HALF: Final = 61
"""Stream of numpy_generator(seed, "evaluation", ...)."""


def open_folders(data: str, seed: int) -> ClassifiedData:
    """The labelled photos below a folder, with its own split or halves drawn from the seed.

    Layouts, looked for in this order; ``val`` is taken before ``test``:

    - Lists: ``train.txt`` and ``val.txt`` or ``test.txt``, a photo a line: ``CLASS/.../x.jpg``, or ``x.jpg LABEL``
      (divided by a tab where names hold blanks). Photos lie beside the lists, one folder above, or in a folder there
      (``101_ObjectCategories/``).
    - Tiny ImageNet: ``train/CLASS/**``, ``val/images/*`` and ``val/val_annotations.txt``.
    - Class folders of both: ``train/CLASS/**``, ``val/CLASS/**`` or ``test/CLASS/**`` (ImageNet).
    - Class folders: ``CLASS/**``; of each class half the photos are for training, an odd one too. ``train`` is a class
      where photos lie in it, and neither ``val`` nor ``test`` stands beside it.

    No photo is opened; all are there.

    Raises:
        UserError: no such folder or none of these layouts; a listed file is missing (names the first, counts all); an
            empty class, fewer than two, a test class that train lacks; a photo listed twice or in both splits; folders
            that are parts of a layout of label maps (``images/``, ``masks/``).
    """
    root = Path(data)
    if not root.is_dir():
        raise UserError(f"{data}: no such folder. Give one with a subfolder of photos for each class.")
    left_out: Counter[str] = Counter()
    lists = next((root / f"{name}.txt" for name in TESTS if (root / f"{name}.txt").is_file()), None)
    if (root / "train.txt").is_file() and lists is not None:
        first = listed(root / "train.txt", ())
        return _split(root / "train.txt", first, lists, listed(lists, first[1]), left_out)
    train, test = root / "train", next((root / name for name in TESTS if (root / name).is_dir()), None)
    if not train.is_dir() or (test is None and not _holds_folders(train)):
        return _halves(root, seed, left_out)
    if test is None:
        raise UserError(
            f"{data}: has train/, but neither val/ nor test/ beside it. Add one, or give the class folders."
        )
    first = _class_folders(train, left_out)
    annotations = root / "val" / "val_annotations.txt"
    if annotations.is_file():
        return _split(train, first, annotations, _tiny_imagenet(annotations, left_out), left_out)
    return _split(train, first, test, _class_folders(test, left_out, least=1), left_out)


def _holds_folders(train: Path) -> bool:
    """Whether its photos lie in subfolders alone: those of classes."""
    try:
        return all("/" in name for name in list_images(train).names)
    except UserError:
        return False


def _halves(root: Path, seed: int, left_out: Counter[str]) -> ClassifiedData:
    photos, names = _class_folders(root, left_out)
    few = [name for name, n in Counter(names).items() if n < 2]
    if few:
        raise UserError(
            f"{root / few[0]}: need at least two photos of each class (one to learn from, one to be judged)."
        )
    whole = _classified(photos, names, _ordered(names))
    first = stratified(whole.labels, 0.5, seed, _HALF)
    rest = np.setdiff1d(np.arange(len(whole)), first)
    note = f"{root} has no split of its own: train and test are halves of each class, drawn from seed {seed}"
    return Split(whole.part(first), whole.part(rest), dict(+left_out), (note,))


def _class_folders(root: Path, left_out: Counter[str], least: int = 2) -> Found:
    """Photos below each subfolder, and their subfolder's name."""
    try:
        classes = sorted(e.name for e in root.iterdir() if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror}).") from error
    parts = parts_of_layouts(classes)
    if parts:
        raise UserError(
            f"{root}: {' and '.join(parts[:2])} are no classes, but photos and label maps of a class per pixel. Take a "
            "protocol for those (cyborgs evaluate --help), or give a folder with a subfolder for each class."
        )
    if len(classes) < least:
        raise UserError(f"{root}: need a subfolder for each class, at least {least}; found {len(classes)}.")
    photos: list[Path] = []
    names: list[str] = []
    for name in classes:
        try:
            listing = list_images(root / name)
        except UserError as error:
            raise UserError(f"{root}: class {name} is empty or cannot be read. {error}") from error
        photos += [root / name / photo for photo in listing.names]
        names += [name] * len(listing.names)
        left_out["files that are no photos"] += listing.other
        left_out["links and folders that cannot be followed"] += len(listing.skipped)
    return photos, names


def _tiny_imagenet(annotations: Path, left_out: Counter[str]) -> Found:
    """``val_annotations.txt``: name, class and a box a line, divided by tabs."""
    folder = annotations.parent / "images"
    found = []
    for number, line in lines(annotations):
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) < 2:
            raise UserError(f"{annotations}, line {number}: need a photo and its class, got {line!r}.")
        found.append((folder / words[0].strip(), words[1].strip()))
    photos = [photo for photo, _ in found]
    must_exist(annotations, photos, "")
    unnamed = len(list_images(folder).names) - len(set(photos))
    left_out[f"photos that {annotations.name} does not name"] += unnamed
    return photos, [name for _, name in found]


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each class once: numbers by value, names by code points."""
    every = set(names)
    return tuple(sorted(every, key=int) if all(n.isdecimal() for n in every) else sorted(every))


def _classified(photos: Sequence[Path], names: Sequence[str], classes: tuple[str, ...]) -> Classified:
    number = {name: c for c, name in enumerate(classes)}
    return Classified(PhotoFiles(tuple(photos)), np.array([number[name] for name in names], np.int64), classes)


def _split(train: Path, first: Found, test: Path, second: Found, left_out: Counter[str]) -> ClassifiedData:
    """Of what was found in ``train`` and in ``test``."""
    (photos, names), (judged, judged_names) = first, second
    classes = _ordered(names)
    if len(classes) < 2:
        raise UserError(f"{train}: need photos of at least two classes, found {classes[0]} alone.")
    present = set(judged_names)
    unknown = sorted(present - set(classes))
    if unknown:
        raise UserError(
            f"{test}: class {unknown[0]} is unknown to {train} ({len(unknown)} such classes). "
            "Both need the same class names."
        )
    check_once(train, photos)
    check_once(test, judged)
    check_apart(photos, judged, (train, test))
    lacking = [name for name in classes if name not in present]
    notes = (f"{len(lacking)} classes have no test photo: {', '.join(lacking[:5])}",) if lacking else ()
    return Split(
        _classified(photos, names, classes), _classified(judged, judged_names, classes), dict(+left_out), notes
    )
