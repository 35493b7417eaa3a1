"""BSDS500: ``groundTruth/*.mat``, the same photo cut up by several people; no classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import numpy as np

from cyborgs.data.annotations.by_file import FileTruth
from cyborgs.data.annotations.matching import found_below
from cyborgs.data.annotations.png import numbered
from cyborgs.data.annotations.truth import Labels
from cyborgs.errors import UserError, printable


@final
class BsdsTruth(FileTruth):
    """``DIR/**/NAME.mat`` with ``groundTruth{1, k}.Segmentation`` of annotator k."""

    kind: Final = "bsds"

    def __init__(self, root: str | Path, names: Sequence[str]) -> None:
        """Look for the files; UserError as ``FolderTruth``."""
        super().__init__(names, found_below(Path(root), ".mat", names), root)

    def annotators(self, i: int) -> list[Labels]:
        """Each one's segments."""
        from scipy.io import loadmat

        path = self.place(i)
        try:
            cells = loadmat(path)["groundTruth"]
            maps = [np.asarray(cell["Segmentation"][0, 0]) for cell in cells.ravel()]
        except Exception as error:  # scipy fails with many kinds on damaged files
            raise UserError(f"{printable(str(path))}: no ground truth of BSDS ({error}).") from error
        if not maps or any(m.ndim != 2 or not m.size or m.dtype.kind not in "ui" for m in maps):
            raise UserError(f"{printable(str(path))}: holds no map of whole numbers.")
        if len({m.shape for m in maps}) > 1:
            raise UserError(f"{printable(str(path))}: its annotators' maps differ in size.")
        return [numbered(m.astype(np.int32)) for m in maps]

    def regions(self, i: int) -> Labels:
        """The first annotator's."""
        return self.annotators(i)[0]

    def classes(self, i: int) -> Labels:
        """There are none: UserError."""
        raise UserError(f"{self._where}: BSDS knows segments, not classes.")
