"""Photos with a class per pixel: a text list of "photo label" lines, and the reading of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.png import read_numbers
from cyborgs.data.images import Images, PhotoFiles
from cyborgs.errors import UserError

UInt8 = NDArray[np.uint8]


def read_label(path: Path) -> UInt8:
    """The label of each pixel, uint8 (H, W), from a grey or palette PNG (then the index, not the colour).

    Raises UserError naming the file where it cannot be read, holds colours or numbers above 255.
    """
    numbers = read_numbers(path)
    if numbers.max() > 255:
        raise UserError(f"{path}: holds label {numbers.max()}; 255 is the largest here.")
    return numbers.astype(np.uint8)


class LabelledPhotos(Protocol):
    """Photos with a class per pixel, by number, as a probe takes them: ``LabelledSet`` and ``PixelSet`` are such."""

    @property
    def classes(self) -> int:
        """Labels 0 to ``classes - 1`` are classes."""

    @property
    def ignore(self) -> int | None:
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
class LabelledSet:
    """Photos and their label maps. ``read(i)`` and ``truth(i)`` decode one; nothing is kept."""

    photos: Images
    labels: tuple[Path, ...]
    classes: int
    """Labels 0 to ``classes - 1`` are classes."""
    ignore: int | None = None
    """Label of pixels that count nowhere."""
    names: tuple[str, ...] = ()
    """Names of the classes, if known."""

    def __post_init__(self) -> None:
        if len(self.photos) != len(self.labels):
            raise UserError(f"{len(self.photos)} photos but {len(self.labels)} label maps")
        if not 2 <= self.classes <= 256:
            raise UserError(f"classes: need 2 to 256, got {self.classes}")
        if self.names and len(self.names) != self.classes:
            raise UserError(f"names: need {self.classes} (one per class), got {len(self.names)}")

    def __len__(self) -> int:
        return len(self.photos)

    def name(self, i: int) -> str:
        """What messages call photo i."""
        return self.photos.name(i)

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3). Raises ``data.decode.UnreadableImage`` naming the file."""
        return self.photos.read(i)

    def truth(self, i: int) -> UInt8:
        """Label map i, uint8 (H, W). Raises UserError naming the file where a label is no class."""
        labels = read_label(self.labels[i])
        known = labels if self.ignore is None else labels[labels != self.ignore]
        if known.size and known.max() >= self.classes:
            ignored = "nothing ignored" if self.ignore is None else f"{self.ignore} ignored"
            raise UserError(
                f"{self.labels[i]}: holds label {known.max()}; classes are 0 to {self.classes - 1}, {ignored}."
            )
        return labels

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        """Photo i and its label map. Raises UserError naming both files where their sizes differ."""
        image, labels = self.read(i), self.truth(i)
        if image.shape[:2] != labels.shape:
            raise UserError(
                f"{self.name(i)} has {image.shape[1]} x {image.shape[0]} pixels, but its label map "
                f"{self.labels[i]} has {labels.shape[1]} x {labels.shape[0]}."
            )
        return image, labels


def _words(line: str, where: str) -> tuple[str, str]:
    words = line.split("\t") if "\t" in line else line.split()
    if len(words) != 2:
        raise UserError(
            f"{where}: need 'photo label' (divided by a tab where names hold blanks), got {line.strip()!r}."
        )
    return words[0].strip(), words[1].strip()


def read_list(path: Path | str, *, classes: int, ignore: int | None = None, names: Sequence[str] = ()) -> LabelledSet:
    """The set that a text file lists, one "photo label" line each; blank lines and lines that begin with # are skipped.

    Paths are relative to the list's folder, or else to that folder's parent, decided for the whole list by its first
    photo (CamVid's ``CamVid/train.txt`` says ``CamVid/train/x.jpg``, a demo's ``splits/train.txt`` ``photos/x.jpg``).
    Every file must exist: raises ValueError naming the first that does not and how many there are.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as e:
        raise UserError(f"{path}: the list cannot be read ({e.strerror}).") from e
    pairs = [
        _words(line, f"{path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not pairs:
        raise UserError(f"{path}: lists no photo.")
    folder = path.absolute().parent
    root = next((r for r in (folder, folder.parent) if (r / pairs[0][0]).is_file()), folder)
    photos, labels = (tuple(root / pair[k] for pair in pairs) for k in (0, 1))
    missing = [p for p in (*photos, *labels) if not p.is_file()]
    if missing:
        looked = f" (looked in {folder} and {folder.parent})" if missing[0] == photos[0] else ""
        raise UserError(f"{path}: {missing[0]} does not exist{looked}; {len(missing)} files are missing.")
    return LabelledSet(PhotoFiles(photos), labels, classes, ignore, tuple(names))
