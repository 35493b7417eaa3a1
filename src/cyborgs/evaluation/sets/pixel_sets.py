"""Photos with a class per pixel, split into train and test, whatever layout they lie in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.folder import ListedLabels
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.data.images import PhotoFiles
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.labelled import Int, Labelled, Split, UInt8, balanced_share
from cyborgs.evaluation.sets.lists import listed_pairs
from cyborgs.evaluation.sets.pixel_checks import (
    VOID_COLUMN,
    check_ignore,
    check_labelled,
    check_listed,
    lacking_classes,
    numbering_notes,
)
from cyborgs.evaluation.sets.pixel_folder import Classes, folder
from cyborgs.evaluation.sets.pixel_layouts import LAYOUTS
from cyborgs.evaluation.sets.splits import first_of
from cyborgs.evaluation.settings.pixels import LabelMapSettings
from cyborgs.machine.cores import usable_cores

_SHARE: Final = 62
_TRAIN: Final = 63
_TEST: Final = 64  # streams of numpy_generator(seed, "evaluation", ...)


class LabelledPhotos(Protocol):
    """Photos with a class per pixel, by number, as a probe takes them: ``PixelSet`` and what is cut out of one."""

    @property
    def classes(self) -> int:
        """Labels 0 to ``classes - 1`` are classes."""

    @property
    def ignore(self) -> int:
        """Label of pixels that count nowhere."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What messages call photo i."""

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3)."""

    def truth(self, i: int) -> UInt8:
        """Its labels, uint8 (H, W)."""

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        """Both. UserError where their sizes differ."""


@dataclass(frozen=True)
class PixelSet(Labelled):
    """Photos and their label maps: ``labels`` are the maps' numbers in ``annotations``, int64 (N,)."""

    annotations: Classes
    classes: int
    """Labels 0 to ``classes - 1`` are classes."""
    ignore: int = 255
    """Label of pixels that count nowhere."""
    names: tuple[str, ...] = ()
    """Names of the classes, if known."""
    present: UInt8 | None = field(default=None, repr=False, compare=False)
    """Which classes occur in each map: bool (maps, C), packed along C (``np.packbits``), by the maps' numbers."""

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
        with ThreadPoolExecutor(min(4, usable_cores())) as pool:
            for i, which in enumerate(pool.map(one, range(len(self)))):
                found[i] = which
        return found

    def _place(self, i: int) -> Path:
        return self.annotations.place(int(self.labels[i]))

    def _known(self, i: int, classes: int) -> Labels:
        labels = self.annotations.classes(int(self.labels[i]))
        if labels.size and labels.max() >= classes:
            raise UserError(
                f"{self._place(i)}: holds label {labels.max()}; classes are 0 to {classes - 1}. "
                "Give more classes, or the right label that counts nowhere."
            )
        return labels

    def _compare(self, i: int, size: tuple[int, ...], labels: tuple[int, ...]) -> None:
        if size != labels:
            raise UserError(
                f"{self.name(i)} has {size[1]} x {size[0]} pixels, but its label map "
                f"{self._place(i)} has {labels[1]} x {labels[0]}."
            )

    def drawn(self, share: float, seed: int) -> Int:
        """As of ``Labelled``, by the classes that occur in the maps."""
        if self.present is None:
            present = self.survey(self.classes)[:, : self.classes]
        else:
            present = np.unpackbits(self.present[self.labels], axis=1, count=self.classes).astype(bool)
        return balanced_share(present, share, seed, _SHARE)

    def class_count(self) -> int:
        """``classes``."""
        return self.classes

    def label_files(self) -> tuple[Path, ...]:
        """The files with the label maps, each once, in their order."""
        return tuple(dict.fromkeys(self._place(i) for i in range(len(self))))

    def identity(self) -> list[str]:
        """Classes, the label that counts nowhere, and names."""
        return [str(self.classes), str(self.ignore), *self.names]


PixelData = Split[PixelSet]


def read_list(path: Path | str, *, classes: int, ignore: int | None = None, names: Sequence[str] = ()) -> PixelSet:
    """The photos and label maps that a text file lists (``lists.listed_pairs``), none of them opened.

    ``ignore``: label that counts nowhere; None: there is none.

    Raises:
        UserError: not such a list, files are missing, or the number of classes cannot be.
    """
    if not 2 <= classes <= 255:
        raise UserError(f"classes: need 2 to 255, got {classes}")
    if names and len(names) != classes:
        raise UserError(f"names: need {classes} (one per class), got {len(names)}")
    photos, labels = listed_pairs(Path(path))
    return PixelSet(
        PhotoFiles(tuple(photos)),
        np.arange(len(photos)),
        ListedLabels(labels, ignore),
        classes,
        255 if ignore is None else ignore,
        tuple(names),
    )


def open_pixels(
    data: str, data_set: str, *, classes: int = 0, ignore: int = 255, images: int = 0, test_images: int = 0, seed: int
) -> PixelData:
    """The labelled photos of a data set, all label maps of used photos read once.

    Args:
        data: folder, or file, in the layout of ``data_set`` (``pixel_layouts.LAYOUTS`` and its docstrings).
        data_set: a name of those, empty: a folder of one's own (``pixel_folder.folder``).
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
    if data_set and data_set not in LAYOUTS:
        raise UserError(
            f"no layout of label maps is named {data_set!r}. There are: {', '.join(LAYOUTS)}, and '' (a folder)."
        )
    root = Path(data)
    if not root.exists():
        raise UserError(f"{data}: no such folder or file.")
    layout = LAYOUTS[data_set](root) if data_set else folder(root, classes, ignore)
    check_ignore(ignore, data_set, layout)
    splits = {"train": layout.train, "test": layout.test}
    check_listed(data, splits)
    left_out: Counter[str] = Counter()
    parts, surveys = [], []
    for (name, split), wanted, stream in zip(splits.items(), (images, test_images), (_TRAIN, _TEST), strict=True):
        left_out.update(split.left_out)
        every = PixelSet(
            PhotoFiles(tuple(split.photos)),
            np.arange(len(split.photos)),
            split.annotations,
            256,
            layout.ignore,
            layout.names,
        )
        if 0 < wanted < len(every):
            left_out[f"{name} photos that were not drawn"] += len(every) - wanted
            every = every.part(first_of(len(every), wanted, seed, stream))
        parts.append(every)
        surveys.append(every.survey(layout.classes))
        check_labelled(data, name, surveys[-1])
    occurring = [np.logical_or.reduce(survey[:, :VOID_COLUMN]) for survey in surveys]
    found = layout.classes or int(np.flatnonzero(occurring[0] | occurring[1]).max(initial=0)) + 1
    if found < 2:
        raise UserError(f"{data}: need at least two classes, found {found}.")
    if found > 255:
        raise UserError(f"{data}: need at most 255 classes, found {found}.")
    train, test = (
        replace(part, classes=found, present=_by_map(part, survey[:, :found]))
        for part, survey in zip(parts, surveys, strict=True)
    )
    notes = (
        *layout.notes,
        *numbering_notes([(part.annotations, survey) for part, survey in zip(parts, surveys, strict=True)]),
        *lacking_classes(occurring[0][:found], occurring[1][:found], layout.names),
    )
    return PixelData(train, test, dict(+left_out), notes)


def _by_map(part: PixelSet, present: NDArray[np.bool_]) -> UInt8:
    """``PixelSet.present`` of a survey."""
    packed = np.packbits(present, axis=1)
    found = np.zeros((int(part.labels.max()) + 1, packed.shape[1]), np.uint8)
    found[part.labels] = packed
    return found


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
