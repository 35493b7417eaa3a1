"""What all annotations give, whatever their layout."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]
VOID: Final = -1
"""What counts nowhere: void, unlabelled, crowd."""


class Truth(Protocol):
    """Annotations of the photos of a data set; photo i is photo i of the names that it was opened for.

    A map is int32 (H, W) at the annotation's own size (the reader, not the caller, knows how it lies: as displayed),
    -1 where a pixel is void. Nothing is kept in memory beyond an index of what lies where; ``regions`` and ``classes``
    may be called from several threads.
    """

    @property
    def kind(self) -> str:
        """The layout: ``coco``, ``voc``, ``cityscapes``, ``ade20k``, ``folder``, ``bsds``, ``coco-stuff``."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of class c; empty where the layout names none."""

    @property
    def missing(self) -> tuple[int, ...]:
        """Photos that have no annotation."""

    def place(self, i: int) -> Path:
        """The file with the annotation of photo i: what messages name. UserError where there is none."""

    def regions(self, i: int) -> Labels:
        """Objects and stuff of photo i one by one: 0..n-1, each number one region (one instance, one segment).

        Raises:
            UserError: damaged, or none for this photo; names the file.
        """

    def classes(self, i: int) -> Labels:
        """Class of each pixel, 0..len(class_names)-1 where those are known.

        Raises:
            UserError: as ``regions``, or the layout knows no classes.
        """

    def annotators(self, i: int) -> list[Labels]:
        """``regions`` as each annotator saw them: one map but for BSDS."""
