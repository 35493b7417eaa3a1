"""Classes by the votes of the nearest photos, of one folder of which half votes: what a monitor measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cyborgs.data.decode import decode
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.features import UInt8
from cyborgs.evaluation.frozen.cache import Extraction, extract
from cyborgs.evaluation.frozen.transforms import Square
from cyborgs.evaluation.frozen.voting import vote
from cyborgs.ops.normalise import unit_rows
from cyborgs.seeds import numpy_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


@dataclass(frozen=True)
class ClassFolder:
    """Photos with a class each."""

    photos: tuple[Path, ...]
    labels: NDArray[np.int64]
    """(N,): the class of each photo, its number in ``classes``."""
    classes: tuple[str, ...]
    """Names of the subfolders, sorted."""

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3). Raises ``data.decode.UnreadableImage`` naming the file."""
        return decode(self.photos[i].read_bytes(), str(self.photos[i]))


def read_classes(folder: Path | str) -> ClassFolder:
    """The photos below each subfolder of ``folder``: the subfolder is their class.

    Raises:
        UserError: fewer than two subfolders, or one with fewer than two photos (one to vote, one to be judged).
    """
    folder = Path(folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}).") from error
    if len(names) < 2:
        raise UserError(f"{folder}: need a subfolder for each class, at least two; found {len(names)}.")
    photos: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        found = list_images(folder / name).names
        if len(found) < 2:
            raise UserError(f"{folder / name}: need at least two photos of each class, found {len(found)}.")
        photos += [folder / name / photo for photo in found]
        labels += [number] * len(found)
    return ClassFolder(tuple(photos), np.array(labels, np.int64), tuple(names))


def halves(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of those who vote and of those who are judged: of each class half, drawn from the seed; odd: one more votes."""
    bank: list[int] = []
    judged: list[int] = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        order = members[numpy_generator(seed, "evaluation", 20, label).permutation(len(members))].tolist()
        half = -(-len(order) // 2)
        bank += order[:half]
        judged += order[half:]
    return np.array(sorted(bank), np.int64), np.array(sorted(judged), np.int64)


def knn_accuracy(backbone: Backbone, photos: ClassFolder, *, layer: str, size: int, seed: int) -> tuple[float, float]:
    """Share of photos whose class the vote of the other half tells, and the share that the commonest class would get."""
    features = unit_rows(torch.from_numpy(extract(backbone, photos.photos, Extraction(layer, Square(size)))))
    bank, judged = halves(photos.labels, seed)
    found = vote(features[bank], photos.labels[bank], features[judged], len(photos.classes))
    truth = photos.labels[judged]
    return float((found == truth).mean()), float(np.bincount(truth).max() / len(truth))
