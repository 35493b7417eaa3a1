"""Training crops of photos with a class per pixel: scale, crop, flip, colours, pad; on uint8 with OpenCV.

The order is mmsegmentation's: what is padded comes last, keeps the mean colour, and lies at the right and the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.evaluation.dense.photometric import distort, random_distortion

UInt8 = NDArray[np.uint8]
REDRAWS: Final = 10


class Pairs(Protocol):
    """Photos and their label maps by number: ``PixelSet`` is such."""

    def __len__(self) -> int: ...

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        """Photo uint8 (H, W, 3) and label map uint8 (H, W)."""
        ...


def fitted(size: tuple[int, int], box: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """(H, W) of a photo (H, W) scaled to fit a box (long side, short side) times ``scale``; (0, 0): native times scale."""
    height, width = size
    factor = scale
    if box != (0, 0):
        long, short = (int(side * scale) for side in box)
        factor = min(long / max(size), short / min(size))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resized(image: UInt8, size: tuple[int, int]) -> UInt8:
    """A photo at (H, W), bilinear and, like the recipes that this follows, without smoothing before it shrinks."""
    if image.shape[:2] == size:
        return image
    return cast(UInt8, cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR))


def resized_labels(labels: UInt8, size: tuple[int, int]) -> UInt8:
    """Labels at (H, W): the nearest pixel, of centres."""
    if labels.shape == size:
        return labels
    return cast(UInt8, cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))


def varied(labels: UInt8, ignore: int, max_share: float) -> bool:
    """Whether two classes at least have labelled pixels, and none more than ``max_share`` of them."""
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[ignore] = 0
    return bool((counts > 0).sum() > 1 and counts.max() <= max_share * counts.sum())


def random_corner(
    labels: UInt8, crop: int, ignore: int, max_share: float, draw: np.random.Generator
) -> tuple[int, int]:
    """(top, left) of a crop; drawn again, ten times at most, while one class fills it. 0 where the photo is smaller."""
    rooms = [max(side - crop, 0) for side in labels.shape]
    for _ in range(REDRAWS + 1):
        top, left = (int(draw.integers(0, room + 1)) for room in rooms)
        if max_share == 1 or varied(labels[top : top + crop, left : left + crop], ignore, max_share):
            break
    return top, left


@dataclass(frozen=True)
class Crops:
    """``labelled_batches.Samples`` of photos with label maps."""

    pairs: Pairs
    ignore: int
    crop: int
    box: tuple[int, int]
    scales: tuple[float, float]
    max_class_share: float
    photometric: bool
    colour: tuple[int, int, int]
    """What photos are padded with: the mean that the network subtracts."""

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, i: int, draw: np.random.Generator) -> tuple[UInt8, UInt8]:
        """Crop uint8 (crop, crop, 3) and its labels uint8 (crop, crop)."""
        image, labels = self.pairs.pair(i)
        scale = draw.uniform(*self.scales)
        flip = draw.random() < 0.5
        colours = random_distortion(draw)
        size = fitted((labels.shape[0], labels.shape[1]), self.box, scale)
        image, labels = resized(image, size), resized_labels(labels, size)
        top, left = random_corner(labels, self.crop, self.ignore, self.max_class_share, draw)
        image, labels = (x[top : top + self.crop, left : left + self.crop] for x in (image, labels))
        if flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.photometric:
            image = distort(np.ascontiguousarray(image), colours)
        return self._padded(image, labels)

    def _padded(self, image: UInt8, labels: UInt8) -> tuple[UInt8, UInt8]:
        height, width = labels.shape
        if (height, width) == (self.crop, self.crop):
            return np.ascontiguousarray(image), np.ascontiguousarray(labels)
        photo = np.empty((self.crop, self.crop, 3), np.uint8)
        photo[:] = self.colour
        photo[:height, :width] = image
        truth = np.full((self.crop, self.crop), self.ignore, np.uint8)
        truth[:height, :width] = labels
        return photo, truth
