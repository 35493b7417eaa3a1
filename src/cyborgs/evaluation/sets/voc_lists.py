"""VOC 2007's lists of a class each: which photos hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.voc import CLASSES as WITH_BACKGROUND
from cyborgs.data.images import PhotoFiles
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.labelled import Labelled, Split
from cyborgs.evaluation.sets.lists import lines
from cyborgs.evaluation.sets.splits import first_of

VocData = Split[Labelled]
CLASSES: Final = tuple(WITH_BACKGROUND[1:])
LISTS: Final = Path("ImageSets/Main")
_TRAIN, _TEST = 51, 52  # streams of numpy_generator(seed, "evaluation", ...)


def by_name(used: NDArray[np.int64], values: NDArray[np.float64]) -> Mapping[str, float]:
    """A value for each of the 20 classes: ``values`` (n,) of the classes of numbers ``used`` (n,), NaN of the others."""
    return dict.fromkeys(CLASSES, float("nan")) | {CLASSES[c]: float(v) for c, v in zip(used, values, strict=True)}


def without_test_images(names: Sequence[str]) -> list[str]:
    """A warning where there are such classes."""
    if not names:
        return []
    return [f"no test image has these classes, which are left out of the mean: {', '.join(names)}."]


def open_voc(data: str, images: int, seed: int) -> VocData:
    """trainval and test of VOC 2007, or of a folder of its layout; labels int8 (N, 20).

    Args:
        data: VOCdevkit/, or VOCdevkit/VOC2007.
        images: photos of each part that are used, drawn from the seed; 0: all.
        seed: of the draw.

    Raises:
        UserError: lists or photos are missing, or contradict each other; says which.
    """
    root = _root(data)
    train, test = _part(root, "trainval"), _part(root, "test")
    names = [{Path(part.name(i)).stem for i in range(len(part))} for part in (train, test)]
    both = sorted(names[0] & names[1])
    if both:
        raise UserError(f"{root / LISTS}: {both[0]} is in trainval and in test ({len(both)} photos are).")
    parts, left_out = [], {}
    for name, stream, part in (("train", _TRAIN, train), ("test", _TEST, test)):
        if 0 < images < len(part):
            left_out[f"{name}, not drawn"] = len(part) - images
            part = part.part(first_of(len(part), images, seed, stream))
        parts.append(part)
    return Split(parts[0], parts[1], left_out)


def _root(data: str) -> Path:
    """The folder that holds JPEGImages and ImageSets."""
    folder = Path(data)
    if not folder.is_dir():
        raise UserError(f"{data}: no such folder. Give VOCdevkit, or VOCdevkit/VOC2007.")
    for root in (folder / "VOC2007", folder / "VOCdevkit" / "VOC2007", folder):
        if (root / LISTS).is_dir():
            return root
    if (folder / "VOC2012").is_dir():
        raise UserError(f"{data}: holds VOC2012 alone, whose test images have no public labels. This takes VOC2007.")
    raise UserError(f"{data}: neither VOC2007/{LISTS} nor {LISTS} lies in it. Give VOCdevkit, or VOCdevkit/VOC2007.")


def _missing(root: Path, part: str) -> UserError:
    where = f"{root / LISTS}: the lists of {part} ({CLASSES[0]}_{part}.txt, ...) are missing"
    if root.name == "VOC2012" and part == "test":
        return UserError(f"{where}: VOC2012 has no public labels for its test images. Give VOC2007.")
    if part == "test":
        return UserError(
            f"{where}. VOC 2007's test photos and lists are a separate download (VOCtest_06-Nov-2007.tar): "
            "unpack it over the same folder."
        )
    return UserError(f"{where}. VOC 2007's training photos and lists are in VOCtrainval_06-Nov-2007.tar.")


def _read_list(path: Path) -> dict[str, int]:
    """Label of each name of one class's list."""
    if not path.is_file():
        raise UserError(f"{path}: cannot be read (No such file). All {len(CLASSES)} classes need their list.")
    found: dict[str, int] = {}
    for number, line in lines(path):
        words = line.split()
        if len(words) != 2 or words[1] not in ("1", "-1", "0"):
            raise UserError(f"{path}, line {number}: need a photo's name and 1, -1 or 0, got {line!r}.")
        if words[0] in found:
            raise UserError(f"{path}: lists {words[0]} twice.")
        found[words[0]] = int(words[1])
    return found


def _part(root: Path, part: str) -> Labelled:
    paths = [root / LISTS / f"{name}_{part}.txt" for name in CLASSES]
    if not any(path.is_file() for path in paths):
        raise _missing(root, part)
    columns = []
    names: list[str] = []
    for path in paths:
        found = _read_list(path)
        names = names or list(found)
        if list(found) != names:
            odd = next((a for a, b in zip(found, names, strict=False) if a != b), "their number")
            raise UserError(f"{path}: lists other photos than {paths[0].name}, or in another order (first: {odd}).")
        columns.append(list(found.values()))
    photos = tuple(root / "JPEGImages" / f"{name}.jpg" for name in names)
    absent = [photo for photo in photos if not photo.is_file()]
    if absent:
        raise UserError(
            f"{absent[0]}: is in the lists of {part}, but there is no such photo; {len(absent)} are missing."
        )
    return Labelled(PhotoFiles(photos), np.array(columns, np.int8).T.copy())
