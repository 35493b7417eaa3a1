"""Boxes of selective search (Uijlings et al., IJCV 2013), and what they are as a map (Figure 5a's "selective search").

The boxes are OpenCV's. Its order is random: a box found at depth d of the merging has rank ``rand() * d``, the lower
the better, with the C library's generator, which all threads of a process share. So here the boxes are ranked anew, by
the same rule, with a generator of the picture's own; the depth is that of a box among those inside it. A picture thus
has the same boxes whatever else runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import xxhash
from numpy.typing import NDArray

from cyborgs.masks.config import SelectiveSearchConfig
from cyborgs.masks.source import SourceDefaults, chunks, in_threads
from cyborgs.structures import LabelMap

Boxes = NDArray[np.int32]
"""(n, 4): x, y, width, height in pixels, as OpenCV has them."""


@dataclass(frozen=True)
class SelectiveSearch(SourceDefaults):
    """A map a photo, at the photo's size: 0 where no box is, else 1 + the rank of a box (``paint``)."""

    config: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)
    threads: int | None = None
    """That label a group; None: one a core. They change nothing but the time."""

    name: ClassVar[str] = "selective-search"
    void: ClassVar[int | None] = None
    needs_images: ClassVar[bool] = True

    @property
    def identity(self) -> dict[str, Any]:
        """Settings, rules and the library's version."""
        return {"rules": 1, **asdict(self.config), "opencv": cv2.__version__}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Consecutive chunks, small ones since a photo takes a second; seed and cycle change nothing."""
        return chunks(count, 32)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is: the settings are in its pixels."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        """uint8 (H, W) for each image (H, W, 3), by all cores."""
        return in_threads(self._label, images, self.threads)

    def _label(self, image: np.ndarray) -> LabelMap:
        return LabelMap(paint(boxes(image, self.config), *image.shape[:2]), self.void)


def boxes(image: np.ndarray, config: SelectiveSearchConfig | None = None) -> Boxes:
    """The boxes of a uint8 (H, W, 3) RGB image that ORL's filter keeps, best first: int32 (n, 4), 1 to 254 of them.

    Kept are, in the order of ``ranked``, those with both sides of ``min_side``, an aspect of at most ``max_aspect`` and
    an IoU of at most ``max_iou`` with each box that was kept before, until there are ``boxes``. Where none is left (an
    image smaller than ``min_side`` always) the one that ``ranked`` gives first.
    """
    config = config or SelectiveSearchConfig()
    found = ranked(image, config.mode)
    short, long = found[:, 2:].min(axis=1), found[:, 2:].max(axis=1)
    left = found[(short >= config.min_side) & (long <= config.max_aspect * short)]
    kept: list[Boxes] = []
    while len(left) and len(kept) < config.boxes:
        kept.append(left[0])
        left = left[1:][iou(left[0], left[1:]) <= config.max_iou]
    return np.stack(kept) if kept else found[:1]


def ranked(image: np.ndarray, mode: Literal["fast", "quality"] = "fast") -> Boxes:
    """All boxes that OpenCV finds in a uint8 (H, W, 3) RGB image, at least one, in an order that is the picture's own.

    The rank of a box is a number drawn from [0, 1) times its ``depths``. The generator is seeded by the pixels.
    """
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    if mode == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    found = np.asarray(search.process(), np.int32).reshape(-1, 4)
    found = np.unique(found, axis=0)  # the order that came by chance is forgotten
    digest = xxhash.xxh64_intdigest(np.ascontiguousarray(image).tobytes())
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([digest, *image.shape[:2]])))
    return found[np.argsort(draw.random(len(found)) * depths(found), kind="stable")]


def depths(found: Boxes) -> NDArray[np.int64]:
    """1 for a box that holds no other, else 1 + the largest depth of those inside it; the boxes are distinct."""
    low, high = found[:, :2], found[:, :2] + found[:, 2:]
    order = np.argsort(found[:, 2].astype(np.int64) * found[:, 3], kind="stable")
    x0, y0, x1, y1 = np.concatenate([low, high], axis=1)[order].T
    depth = np.ones(len(found), np.int64)
    for i in range(1, len(found)):
        inside = (x0[:i] >= x0[i]) & (y0[:i] >= y0[i]) & (x1[:i] <= x1[i]) & (y1[:i] <= y1[i])
        depth[i] += depth[:i].max(initial=0, where=inside)
    result = np.empty_like(depth)
    result[order] = depth
    return result


def iou(one: NDArray[np.int32], others: Boxes) -> NDArray[np.float64]:
    """Intersection over union of a box (4,) with each of (n, 4): float64 (n,)."""
    a, b = one.astype(np.int64), others.astype(np.int64)
    width = np.minimum(a[0] + a[2], b[:, 0] + b[:, 2]) - np.maximum(a[0], b[:, 0])
    height = np.minimum(a[1] + a[3], b[:, 1] + b[:, 3]) - np.maximum(a[1], b[:, 1])
    common = width.clip(0) * height.clip(0)
    result: NDArray[np.float64] = common / (a[2] * a[3] + b[:, 2] * b[:, 3] - common)
    return result


def paint(kept: Boxes, height: int, width: int) -> NDArray[np.uint8]:
    """Boxes as a map, uint8 (height, width): 0 where there is none, else 1 + the rank of the smallest that is there.

    They are painted from the largest to the smallest, of equally large ones the better rank last. So a small box lies
    over a large one, which keeps what is left of it; a box that others cover wholly has no pixel, hence no region.
    """
    labels = np.zeros((height, width), np.uint8)
    area = kept[:, 2].astype(np.int64) * kept[:, 3]
    for rank in np.lexsort((-np.arange(len(kept)), -area)).tolist():
        x, y, w, h = kept[rank].tolist()
        labels[y : y + h, x : x + w] = rank + 1
    return labels
