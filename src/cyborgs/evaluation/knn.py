"""Classes by the votes of the nearest photos: no training, no setting to tune.

DINO's weighted vote (facebookresearch/dino, eval_knn.py): the k photos nearest by cosine vote for their class with
weight exp(cosine / T), k = 20, T = 0.07.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.data.decode import decode
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.features import UInt8, layer_maps
from cyborgs.ops.normalise import unit_rows
from cyborgs.seeds import numpy_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

NEIGHBOURS: Final = 20
TEMPERATURE: Final = 0.07
BATCH: Final = 32
"""Photos in a call of the network: constant, since another batch size may change the last bits."""


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


def square(image: UInt8, size: int) -> UInt8:
    """The middle of a photo uint8 (H, W, 3) as (size, size, 3): short side to 8/7 of ``size``, then cut out."""
    height, width = image.shape[:2]
    factor = size * 8 / 7 / min(height, width)
    scaled = cv2.resize(
        image,
        (max(size, round(width * factor)), max(size, round(height * factor))),
        interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR,
    )
    top, left = (scaled.shape[0] - size) // 2, (scaled.shape[1] - size) // 2
    out: UInt8 = scaled[top : top + size, left : left + size].astype(np.uint8, copy=False)
    return out


def pooled_features(backbone: Backbone, photos: ClassFolder, layer: str, size: int) -> Tensor:
    """Mean over a layer's map of each photo's square, of unit length: float32 (N, C) on the CPU."""
    parts = []
    for first in range(0, len(photos), BATCH):
        images = [square(photos.read(i), size) for i in range(first, min(first + BATCH, len(photos)))]
        parts.append(layer_maps(backbone, images, [layer])[layer].mean(dim=(2, 3)).cpu())
    return unit_rows(torch.cat(parts))


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


def vote(
    bank: Tensor,
    labels: Sequence[int] | NDArray[np.int64],
    queries: Tensor,
    classes: int,
    *,
    k: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> NDArray[np.int64]:
    """The class of each query by the weighted vote of its ``k`` nearest.

    Args:
        bank: unit rows (N, C).
        labels: (N,), 0 to ``classes - 1``.
        queries: unit rows (Q, C).
        classes: how many.
        k: voters, at most N.
        temperature: T of exp(cosine / T).

    Returns:
        int64 (Q,); ties go to the lowest class.
    """
    similar = queries.double() @ bank.double().T
    # Sorted and stable, not topk: equal distances are broken by the order of the bank, everywhere alike.
    near, order = torch.sort(similar, dim=1, descending=True, stable=True)
    near, order = near[:, :k], order[:, :k]
    voters = torch.as_tensor(np.asarray(labels, np.int64))[order]
    # Less the nearest's: the weights' ratios are the same, and none overflows.
    weights = ((near - near[:, :1]) / temperature).exp()
    votes = torch.zeros(len(queries), classes, dtype=torch.float64).scatter_add_(1, voters, weights)
    found: NDArray[np.int64] = votes.argmax(dim=1).numpy()
    return found


def knn_accuracy(backbone: Backbone, photos: ClassFolder, *, layer: str, size: int, seed: int) -> tuple[float, float]:
    """Share of photos whose class the vote of the other half tells, and the share that the commonest class would get."""
    features = pooled_features(backbone, photos, layer, size)
    bank, judged = halves(photos.labels, seed)
    found = vote(features[bank], photos.labels[bank], features[judged], len(photos.classes))
    truth = photos.labels[judged]
    return float((found == truth).mean()), float(np.bincount(truth).max() / len(truth))
