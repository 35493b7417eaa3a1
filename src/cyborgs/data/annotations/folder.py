"""A folder of label PNGs named as the photos: CamVid, COCO-Stuff's maps, one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

from cyborgs.data.annotations.by_file import FileTruth
from cyborgs.data.annotations.matching import found_below
from cyborgs.data.annotations.png import read_classes
from cyborgs.data.annotations.truth import Labels


@final
class FolderTruth(FileTruth):
    """``DIR/**/NAME.png`` for photo ``NAME``: a number per pixel, which is its class and, in this photo, its region."""

    kind: Final = "folder"

    def __init__(self, root: str | Path, names: Sequence[str], *, void: int | None = 255) -> None:
        """Look for the files.

        Args:
            root: the folder, searched through.
            names: of the photos.
            void: number of pixels that count nowhere, of 8 and of 16 bits; None: all count.

        Raises:
            UserError: no such folder, no PNG in it, or a name that fits twice.
        """
        self.void = void
        super().__init__(names, found_below(Path(root), ".png", names), root)

    def classes(self, i: int) -> Labels:
        """The numbers as they are, void -1."""
        return read_classes(self.place(i), self.void)


class ListedLabels:
    """Label PNGs as a list names them, that of photo i as number i."""

    def __init__(self, files: Sequence[Path], void: int | None) -> None:
        self._files = files
        self._void = void

    def place(self, i: int) -> Path:
        """Its label file."""
        return self._files[i]

    def classes(self, i: int) -> Labels:
        """As ``FolderTruth.classes``."""
        return read_classes(self._files[i], self._void)
