"""Photos with a class per pixel, split into train and test, whatever layout they lie in."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.data.images import Images, PhotoFiles
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.pixel_checks import (
    VOID_COLUMN,
    check_ignore,
    check_labelled,
    check_listed,
    lacking_classes,
    numbering_notes,
)
from cyborgs.evaluation.sets.pixel_folder import Classes
from cyborgs.evaluation.sets.pixel_layouts import LAYOUTS
from cyborgs.evaluation.sets.splits import balanced_order, counted, fingerprint, first_of, part_of
from cyborgs.evaluation.settings.pixels import LabelMapSettings

UInt8 = NDArray[np.uint8]
_SHARE: Final = 62
_TRAIN: Final = 63
_TEST: Final = 64  # streams of numpy_generator(seed, "evaluation", ...)


@dataclass(frozen=True)
class PixelSet:
    """Photos and their label maps; what ``LabelledSet`` offers. Each call decodes; nothing is kept."""

    photos: Images
    annotations: Classes
    numbers: tuple[int, ...]
    """Number of each photo in ``annotations``."""
    classes: int
    """Labels 0 to ``classes - 1`` are classes."""
    ignore: int
    """Label of pixels that count nowhere."""
    names: tuple[str, ...] = ()
    """Names of the classes, if known."""

    def __len__(self) -> int:
        return len(self.photos)

    def name(self, i: int) -> str:
        """What messages call photo i."""
        return self.photos.name(i)

    def places(self) -> tuple[Path, ...]:
        """The files with the labels, each once, in their order."""
        return tuple(dict.fromkeys(self.annotations.place(number) for number in self.numbers))

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3). Raises ``data.decode.UnreadableImage`` naming the file."""
        return self.photos.read(i)

    def truth(self, i: int) -> UInt8:
        """Label map of photo i, uint8 (H, W). Raises UserError naming the photo where a label is no class."""
        labels = self._known(i, self.classes)
        return np.where(labels == VOID, self.ignore, labels).astype(np.uint8)

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        """Photo i and its label map. Raises UserError where their sizes differ."""
        image, labels = self.read(i), self.truth(i)
        self._compare(i, image.shape[:2], labels.shape)
        return image, labels

    def survey(self, classes: int) -> NDArray[np.bool_]:
        """Which labels occur in each map, (N, 257), the last column: pixels that count nowhere (``VOID_COLUMN``).

        Every label map is read, its size compared with that in the photo's header.

        Raises:
            UserError: the sizes differ, or a label is ``classes`` or more (0: 256); names the files.
        """

        def one(i: int) -> NDArray[np.bool_]:
            labels = self._known(i, classes or 256)
            self._compare(i, self.photos.size(i), labels.shape)
            return np.bincount(np.where(labels == VOID, VOID_COLUMN, labels).ravel(), minlength=VOID_COLUMN + 1) > 0

        found = np.zeros((len(self), VOID_COLUMN + 1), bool)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for i, which in enumerate(pool.map(one, range(len(self)))):
                found[i] = which
        return found

    def _known(self, i: int, classes: int) -> Labels:
        labels = self.annotations.classes(self.numbers[i])
        if labels.size and labels.max() >= classes:
            raise UserError(
                f"{self.annotations.place(self.numbers[i])}: holds label {labels.max()}; classes are 0 to {classes - 1}. "
                "Give more classes, or the right label that counts nowhere."
            )
        return labels

    def _compare(self, i: int, size: tuple[int, ...], labels: tuple[int, ...]) -> None:
        if size != labels:
            raise UserError(
                f"{self.name(i)} has {size[1]} x {size[0]} pixels, but its label map "
                f"{self.annotations.place(self.numbers[i])} has {labels[1]} x {labels[0]}."
            )

    def part(self, numbers: Iterable[int]) -> PixelSet:
        """The photos of these numbers, in their order."""
        chosen = list(numbers)
        return replace(self, photos=self.photos.subset(chosen), numbers=tuple(self.numbers[i] for i in chosen))


@dataclass(frozen=True)
class PixelData:
    """Photos to learn from and photos to be judged by."""

    train: PixelSet
    test: PixelSet
    present: UInt8 = field(repr=False, compare=False)
    """Which classes occur in each training photo: bool (N, C), packed along C (``np.packbits``)."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Photos and label maps that are not used, by reason."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know: classes that train lacks, a split that is not the published one."""

    @property
    def counts(self) -> Mapping[str, int]:
        """``train``, ``test``, ``classes``, and ``skipped: REASON``."""
        return counted(len(self.train), len(self.test), self.train.classes, self.left_out)

    @cached_property
    def fingerprint(self) -> str:
        """See ``splits.fingerprint``; of classes and the split too."""
        return fingerprint(
            {"train": self.train.photos, "test": self.test.photos},
            [str(self.train.classes), str(self.train.ignore), *self.train.names],
            {"train labels": self.train.places(), "test labels": self.test.places()},
        )

    def share(self, share: float, seed: int) -> PixelSet:
        """round(share x photos) training photos, at least one, in which each class keeps its share of photos.

        The first of ``splits.balanced_order``, drawn from the seed; a smaller share lies in a larger.
        """
        if share == 1:
            return self.train
        kept = part_of(len(self.train), share)
        present = np.unpackbits(self.present, axis=1, count=self.train.classes).astype(bool)
        return self.train.part(np.sort(balanced_order(present, seed, _SHARE)[:kept]).tolist())


def open_pixels(
    data: str, data_set: str, *, classes: int = 0, ignore: int = 255, images: int = 0, test_images: int = 0, seed: int
) -> PixelData:
    """The labelled photos of a data set, all label maps of used photos read once.

    Args:
        data: folder, or file, in the layout of ``data_set`` (``pixel_layouts.LAYOUTS`` and its docstrings).
        data_set: a name of those, empty: a folder of one's own.
        classes: of a folder; 0: as it says, or one more than the highest label.
        ignore: label of a folder's PNGs that counts nowhere; other annotations say so themselves.
        images: training photos that are used, drawn from the seed; 0: all.
        test_images: the same of the test photos.
        seed: for these.

    Raises:
        UserError: not of this layout; photos without labels, listed twice or in both splits (names the first, counts
            all), a label map of another size than its photo, labels that are no class, a split without a labelled
            pixel, an ``ignore`` where annotations have their own; names the files.
    """
    if data_set not in LAYOUTS:
        known = ", ".join(name for name in LAYOUTS if name)
        raise UserError(f"no layout of label maps is named {data_set!r}. There are: {known}, and '' (a folder).")
    if not Path(data).exists():
        raise UserError(f"{data}: no such folder or file.")
    layout = LAYOUTS[data_set](Path(data), classes, ignore)
    check_ignore(ignore, data_set, layout)
    check_listed(data, {"train": layout.train, "test": layout.test})
    left_out = Counter(layout.left_out)
    parts, surveys = [], []
    for name, split, wanted, stream in (
        ("train", layout.train, images, _TRAIN),
        ("test", layout.test, test_images, _TEST),
    ):
        numbers = np.arange(len(split.photos))
        if 0 < wanted < len(numbers):
            left_out[f"{name} photos that were not drawn"] += len(numbers) - wanted
            numbers = first_of(len(numbers), wanted, seed, stream)
        chosen = tuple(int(i) for i in numbers)
        one = PixelSet(
            PhotoFiles(tuple(Path(split.photos[i]) for i in chosen)),
            split.annotations,
            chosen,
            256,
            layout.ignore,
            layout.names,
        )
        parts.append(one)
        surveys.append(one.survey(layout.classes))
        check_labelled(data, name, surveys[-1])
    present = [np.logical_or.reduce(survey[:, :VOID_COLUMN]) for survey in surveys]
    found = layout.classes or int(np.flatnonzero(present[0] | present[1]).max(initial=0)) + 1
    if found < 2:
        raise UserError(f"{data}: need at least two classes, found {found}.")
    if found > 255:
        raise UserError(f"{data}: need at most 255 classes, found {found}.")
    train, test = (replace(one, classes=found) for one in parts)
    notes = (
        *layout.notes,
        *numbering_notes([(part.annotations, survey) for part, survey in zip(parts, surveys, strict=True)]),
        *lacking_classes(present[0][:found], present[1][:found], layout.names),
    )
    packed = np.packbits(surveys[0][:, :found], axis=1)
    return PixelData(train, test, packed, {k: n for k, n in left_out.items() if n}, notes)


def open_for(data: str, settings: LabelMapSettings, seed: int, data_set: str = "") -> PixelData:
    """``open_pixels`` with what a protocol's settings say."""
    return open_pixels(
        data,
        data_set,
        classes=settings.classes,
        ignore=settings.ignore,
        images=settings.images,
        test_images=settings.test_images,
        seed=seed,
    )
