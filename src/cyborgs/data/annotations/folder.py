"""A folder of label PNGs named as the photos: CamVid, COCO-Stuff's maps, one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from cyborgs.data.annotations.matching import files_below, match, none_of, required
from cyborgs.data.annotations.png import numbered, read_numbers
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import printable


@final
class FolderTruth:
    """``DIR/**/NAME.png`` for photo ``NAME``: a number per pixel, which is its class and, in this photo, its region."""

    kind: Final = "folder"
    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | Path, names: Sequence[str], *, void: int | None = 255) -> None:
        """Look for the files.

        Args:
            root: the folder, searched through.
            names: of the photos.
            void: number of pixels that count nowhere, of 8 and of 16 bits; None: all count.

        Raises:
            UserError: no such folder, no PNG in it, or a name that fits twice.
        """
        self.root = Path(root)
        self.void = void
        self._names = tuple(names)
        self._where = printable(str(root))
        self._files = match(names, files_below(self.root, ".png"), self._where)
        self.missing = none_of(self._files)

    def place(self, i: int) -> Path:
        """Its label file."""
        return required(self._files[i], self._names[i], self._where)

    def classes(self, i: int) -> Labels:
        """The numbers as they are, void -1."""
        numbers = read_numbers(self.place(i))
        if self.void is not None:
            numbers[numbers == self.void] = VOID
        return numbers

    def regions(self, i: int) -> Labels:
        """A region for each number that occurs."""
        classes = self.classes(i)
        return numbered(classes, classes == VOID)

    def annotators(self, i: int) -> list[Labels]:
        """One."""
        return [self.regions(i)]
