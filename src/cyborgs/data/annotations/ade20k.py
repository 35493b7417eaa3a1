"""ADE20K's scene parsing set (ADEChallengeData2016): 150 classes as PNGs, 0 unlabelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np

from cyborgs.data.annotations.by_file import FileTruth
from cyborgs.data.annotations.matching import found_below
from cyborgs.data.annotations.png import read_numbers, to_classes
from cyborgs.data.annotations.truth import Labels

CLASSES: Final = 150

_TABLE = np.arange(CLASSES + 1, dtype=np.int32) - 1  # 0 becomes VOID


@final
class Ade20kTruth(FileTruth):
    """``DIR/annotations/**/NAME.png``; a region is a class in its photo, for the set knows no objects."""

    kind: Final = "ade20k"

    def __init__(self, root: str | Path, names: Sequence[str]) -> None:
        """Look for the files; UserError as ``FolderTruth``."""
        base = Path(root) / "annotations" if (Path(root) / "annotations").is_dir() else Path(root)
        super().__init__(names, found_below(base, ".png", names), base)
        self.class_names = _class_names(Path(root))

    def classes(self, i: int) -> Labels:
        """0 to 149, unlabelled -1."""
        path = self.place(i)
        return to_classes(read_numbers(path), _TABLE, path)


def _class_names(root: Path) -> tuple[str, ...]:
    """From ``objectInfo150.txt`` beside the folders (its last column), else numbers."""
    try:
        lines = (root / "objectInfo150.txt").read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        lines = []
    names = tuple(line.split("\t")[-1].split(",")[0].strip() for line in lines if line.strip())
    return names if len(names) == CLASSES else tuple(f"class {c}" for c in range(CLASSES))
