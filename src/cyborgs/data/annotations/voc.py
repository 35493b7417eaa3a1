"""PASCAL VOC segmentation: palette PNGs of classes and of objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np

from cyborgs.data.annotations.by_file import FileTruth
from cyborgs.data.annotations.matching import found_below, required
from cyborgs.data.annotations.png import numbered, read_numbers, to_classes
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import UserError, printable

CLASSES: Final = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
]
BORDER: Final = 255

_TABLE = np.full(256, -2, np.int32)
_TABLE[: len(CLASSES)] = np.arange(len(CLASSES))
_TABLE[BORDER] = VOID


@final
class VocTruth(FileTruth):
    """``DIR/SegmentationClass/NAME.png`` and ``DIR/SegmentationObject/NAME.png``; DIR is ``VOCdevkit/VOC2012``."""

    kind: Final = "voc"
    class_names: tuple[str, ...] = tuple(CLASSES)

    def __init__(self, root: str | Path, names: Sequence[str], *, objects: bool = True) -> None:
        """Look for the files; UserError as ``FolderTruth``. Without ``objects`` those are not looked for: no regions."""
        super().__init__(names, found_below(Path(root) / "SegmentationClass", ".png", names), root)
        self._objects: list[Path | None] = [None] * len(names)
        if objects:
            self._objects = found_below(Path(root) / "SegmentationObject", ".png", names)

    def classes(self, i: int) -> Labels:
        """0 background, 1 to 20 the classes, the white border -1."""
        path = self.place(i)
        classes = to_classes(read_numbers(path), _TABLE, path)
        if (classes == -2).any():
            raise UserError(f"{printable(str(path))}: holds a number that is no class of VOC (0 to 20, 255).")
        return classes

    def regions(self, i: int) -> Labels:
        """Each object, and the background as one more; the border is void."""
        objects = read_numbers(required(self._objects[i], self._names[i], f"{self._where}/SegmentationObject"))
        return numbered(objects, objects == BORDER)
