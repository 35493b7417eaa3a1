"""Annotations of which each photo has a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from cyborgs.data.annotations.matching import none_of, required
from cyborgs.data.annotations.png import numbered
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import printable


class FileTruth(ABC):
    """What a ``Truth`` is besides the reading of a file: subclasses give ``classes``, and ``regions`` where they know objects."""

    class_names: tuple[str, ...] = ()

    def __init__(self, names: Sequence[str], files: Sequence[Path | None], where: str | Path) -> None:
        """Of photos ``names``: their files, None where there is none; ``where``: what messages call all of them."""
        self._names = tuple(names)
        self._where = printable(str(where))
        self._files = files
        self.missing = none_of(files)

    def place(self, i: int) -> Path:
        """Its label file."""
        return required(self._files[i], self._names[i], self._where)

    @abstractmethod
    def classes(self, i: int) -> Labels:
        """Class of each pixel of photo i, void -1."""

    def regions(self, i: int) -> Labels:
        """A region for each class that occurs."""
        classes = self.classes(i)
        return numbered(classes, classes == VOID)

    def annotators(self, i: int) -> list[Labels]:
        """One."""
        return [self.regions(i)]
