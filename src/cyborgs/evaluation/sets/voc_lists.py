"""VOC 2007's lists of a class each: which photos hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.voc import CLASSES as WITH_BACKGROUND
from cyborgs.data.images import Images, PhotoFiles
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.splits import balanced_order, fingerprint, first_of, part_of

CLASSES: Final = tuple(WITH_BACKGROUND[1:])
LISTS: Final = Path("ImageSets/Main")
_TRAIN, _TEST, _SHARE = 51, 52, 56  # streams of numpy_generator(seed, "evaluation", ...)


@dataclass(frozen=True)
class VocPart:
    """Photos with all classes' labels."""

    photos: Images
    labels: NDArray[np.int8]
    """(N, 20): 1 present, -1 absent, 0 only difficult objects."""

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, i: int) -> NDArray[np.uint8]:
        """Photo i, uint8 (H, W, 3). Raises ``data.decode.UnreadableImage`` naming the file."""
        return self.photos.read(i)

    def take(self, chosen: NDArray[np.int64]) -> VocPart:
        """The photos of these numbers."""
        return VocPart(self.photos.subset(chosen.tolist()), self.labels[chosen])


@dataclass(frozen=True)
class VocData:
    """trainval and test."""

    train: VocPart
    test: VocPart
    left_out: Mapping[str, int]

    @property
    def counts(self) -> Mapping[str, int]:
        """Photos of both parts, and what was left out."""
        return {"train": len(self.train), "test": len(self.test), **self.left_out}

    @cached_property
    def fingerprint(self) -> str:
        """See ``splits.fingerprint``; of the labels too."""
        parts = {"train": self.train, "test": self.test}
        return fingerprint(
            {name: part.photos for name, part in parts.items()},
            [part.labels.tobytes().hex() for part in parts.values()],
        )

    def share(self, share: float, seed: int) -> NDArray[np.int64]:
        """Numbers of the training photos that a share of the labels is, rising; a smaller share lies in a larger.

        The first of ``splits.balanced_order`` by the classes that are present (label 1).
        """
        kept = part_of(len(self.train), share)
        chosen: NDArray[np.int64] = np.sort(balanced_order(self.train.labels == 1, seed, _SHARE)[:kept])
        return chosen


def by_name(used: NDArray[np.int64], values: NDArray[np.float64]) -> Mapping[str, float]:
    """A value for each of the 20 classes: ``values`` (n,) of the classes of numbers ``used`` (n,), NaN of the others."""
    return dict.fromkeys(CLASSES, float("nan")) | {CLASSES[c]: float(v) for c, v in zip(used, values, strict=True)}


def without_test_images(names: Sequence[str]) -> list[str]:
    """A warning where there are such classes."""
    if not names:
        return []
    return [f"no test image has these classes, which are left out of the mean: {', '.join(names)}."]


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


def _read_list(path: Path) -> tuple[list[str], list[int]]:
    """Names and labels of one class's list."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). All 20 classes need their list.") from error
    names, labels = [], []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("1", "-1", "0"):
            raise UserError(f"{path}, line {number}: need a photo's name and 1, -1 or 0, got {line.strip()!r}.")
        names.append(words[0])
        labels.append(int(words[1]))
    return names, labels


def _part(root: Path, part: str) -> tuple[list[str], VocPart]:
    if not any((root / LISTS / f"{name}_{part}.txt").is_file() for name in CLASSES):
        raise _missing(root, part)
    first: list[str] = []
    columns = []
    for name in CLASSES:
        path = root / LISTS / f"{name}_{part}.txt"
        names, labels = _read_list(path)
        if not first:
            first = names
            twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
            if not names or twice:
                raise UserError(f"{path}: lists {f'{twice[0]} twice' if twice else 'no photo'}.")
        if names != first:
            odd = next((a for a, b in zip(names, first, strict=False) if a != b), "their number")
            raise UserError(
                f"{path}: lists other photos than {CLASSES[0]}_{part}.txt, or in another order (first: {odd})."
            )
        columns.append(labels)
    photos = tuple(root / "JPEGImages" / f"{name}.jpg" for name in first)
    absent = [photo for photo in photos if not photo.is_file()]
    if absent:
        raise UserError(
            f"{absent[0]}: is in the lists of {part}, but there is no such photo; {len(absent)} are missing."
        )
    return first, VocPart(PhotoFiles(photos), np.array(columns, np.int8).T.copy())


def open_voc(data: str, images: int, seed: int) -> VocData:
    """trainval and test of VOC 2007, or of a folder of its layout.

    Args:
        data: VOCdevkit/, or VOCdevkit/VOC2007.
        images: photos of each part that are used, drawn from the seed; 0: all.
        seed: of the draw.

    Raises:
        UserError: lists or photos are missing, or contradict each other; says which.
    """
    root = _root(data)
    found = [_part(root, part) for part in ("trainval", "test")]
    both = sorted(set(found[0][0]) & set(found[1][0]))
    if both:
        raise UserError(f"{root / LISTS}: {both[0]} is in trainval and in test ({len(both)} photos are).")
    parts, left_out = [], {}
    for name, stream, (_, part) in zip(("train", "test"), (_TRAIN, _TEST), found, strict=True):
        if 0 < images < len(part):
            left_out[f"skipped: {name}, not drawn"] = len(part) - images
            part = part.take(first_of(len(part), images, seed, stream))
        parts.append(part)
    return VocData(parts[0], parts[1], left_out)
