"""Class of every pixel of a photo: by the whole photo at once, or by windows that overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.errors import NotFiniteError, printable
from cyborgs.evaluation.dense.augment import Pairs, fitted, resized
from cyborgs.evaluation.dense.network import enlarge
from cyborgs.features.threads import ahead
from cyborgs.metrics.segmentation import Counts, confusion

UInt8 = NDArray[np.uint8]
Logits = Callable[[Tensor], Tensor]
"""uint8 (1, 3, H, W) -> (1, classes, h, w)."""


class NamedPairs(Pairs, Protocol):
    """Photos with label maps and names."""

    def name(self, i: int) -> str:
        """What messages call it."""
        ...


@dataclass(frozen=True)
class Inference:
    """How a photo is judged."""

    classes: int
    ignore: int
    box: tuple[int, int] = (0, 0)
    """Long and short side that photos are scaled to; (0, 0): native size."""
    window: int = 0
    """Side of the windows in pixels; 0: the whole photo."""
    stride: int = 0
    """Pixels from window to window."""
    align_corners: bool = True


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover ``length`` pixels: each ``stride``, and the last one at the end."""
    if window >= length:
        return [0]
    count = -(-(length - window) // stride)
    return [min(k * stride, length - window) for k in range(count + 1)]


def pixel_logits(logits: Logits, image: Tensor, how: Inference) -> Tensor:
    """Logits of every pixel, float32 (1, classes, H, W), of an image uint8 (1, 3, H, W); windows are averaged."""
    height, width = image.shape[2:]
    if not how.window or how.window >= max(height, width):
        return enlarge(logits(image).float(), height, width, how.align_corners)
    total = torch.zeros(1, how.classes, height, width, device=image.device)
    seen = torch.zeros(1, 1, height, width, device=image.device)
    rows, columns = min(how.window, height), min(how.window, width)
    for top in starts(height, how.window, how.stride):
        for left in starts(width, how.window, how.stride):
            place = (slice(None), slice(None), slice(top, top + rows), slice(left, left + columns))
            total[place] += enlarge(logits(image[place]).float(), rows, columns, how.align_corners)
            seen[place] += 1
    return total / seen


@torch.no_grad()
def predicted(logits: Logits, image: UInt8, how: Inference, device: torch.device | str = "cpu") -> UInt8:
    """Class of each pixel, uint8 (H, W), of a photo uint8 (H, W, 3); ties to the lowest class.

    Logits are enlarged to what the network saw, then to the photo. Raises NotFiniteError where they are NaN or infinite.
    """
    height, width = image.shape[:2]
    small = resized(image, fitted((height, width), how.box))
    tensor = torch.from_numpy(np.ascontiguousarray(small)).to(device).permute(2, 0, 1)[None]
    found = enlarge(pixel_logits(logits, tensor, how), height, width, how.align_corners)
    if not bool(torch.isfinite(found).all()):
        raise NotFiniteError("logits hold NaN or infinity. The weights are damaged.")
    labels: UInt8 = found[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return labels


def confusions(
    logits: Logits, photos: NamedPairs, how: Inference, device: torch.device | str, threads: int
) -> Iterator[Counts]:
    """Pixels by (prediction, class) of each photo, int64 (classes, classes), in order; decoded ahead in threads."""
    for i, (image, truth) in enumerate(ahead(photos.pair, range(len(photos)), threads)):
        try:
            found = predicted(logits, image, how, device)
        except NotFiniteError as error:
            raise NotFiniteError(f"{printable(photos.name(i))}: {error}") from error
        yield confusion(found, truth, how.classes, how.classes, how.ignore)
