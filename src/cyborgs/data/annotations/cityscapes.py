"""Cityscapes: ``gtFine/SPLIT/CITY/*``, by its 19 training classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np

from cyborgs.data.annotations.by_file import FileTruth
from cyborgs.data.annotations.matching import found_below
from cyborgs.data.annotations.png import numbered, read_numbers, to_classes
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import UserError, printable

CLASSES: Final = [
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic_light", "traffic_sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
]
LABEL_IDS: Final = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label id of training class 0, 1, ..."""

_PHOTO = "_leftImg8bit"
_OF_LABEL = np.full(35, VOID, np.int32)  # ids 0 to 33; -1 (licence plate) is stored as 255, see classes()
_OF_LABEL[list(LABEL_IDS)] = np.arange(len(CLASSES))


@final
class CityscapesTruth(FileTruth):
    """``DIR/gtFine/**/NAME_gtFine_labelTrainIds.png``, else ``labelIds``, and ``instanceIds``; DIR may be gtFine itself."""

    kind: Final = "cityscapes"
    class_names: tuple[str, ...] = tuple(CLASSES)

    def __init__(self, root: str | Path, names: Sequence[str]) -> None:
        """Look for the files; UserError as ``FolderTruth``."""
        base = Path(root) / "gtFine" if (Path(root) / "gtFine").is_dir() else Path(root)
        plain = [_plain(name) for name in names]

        def found(kind: str, needed: bool = False) -> list[Path | None]:
            try:
                return found_below(base, f"_gtFine_{kind}.png", plain)
            except UserError:
                if needed:
                    raise
                return [None] * len(names)

        trained = files = found("labelTrainIds")
        # Photo by photo: who converts the training photos alone has label ids for the others.
        if None in trained:
            others = found("labelIds", needed=not any(trained))
            files = [a or b for a, b in zip(trained, others, strict=True)]
        super().__init__(names, files, base)
        self._training_ids = [one is not None for one in trained]
        self._objects = found("instanceIds")

    def classes(self, i: int) -> Labels:
        """Training classes 0 to 18, all else -1."""
        path = self.place(i)
        numbers = read_numbers(path)
        if not self._training_ids[i]:
            numbers[numbers == 255] = 0
            return to_classes(numbers, _OF_LABEL, path)
        numbers[numbers == 255] = VOID
        if numbers.max() >= len(CLASSES):
            raise UserError(
                f"{printable(str(path))}: holds {numbers.max()}, training ids are 0 to 18 and 255. Are these labelIds?"
            )
        return numbers

    def regions(self, i: int) -> Labels:
        """Each instance, and each class without instances; void where the classes are. Without ``instanceIds``: classes."""
        classes = self.classes(i)
        path = self._objects[i]
        objects = classes if path is None else read_numbers(path)
        if objects.shape != classes.shape:
            raise UserError(f"{printable(str(path))}: differs in size from {printable(str(self._files[i]))}.")
        return numbered(objects, classes == VOID)


def _plain(name: str) -> str:
    """``train/ulm/ulm_000000_000019_leftImg8bit.png`` -> ``train/ulm/ulm_000000_000019.png``."""
    path = Path(name)
    return path.with_name(path.stem.removesuffix(_PHOTO) + path.suffix).as_posix()
