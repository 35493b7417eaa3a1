"""What is prepared of photos: boxes, saliency maps, neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.errors import UserError
from cyborgs.masks.config import SelectiveSearchConfig
from cyborgs.masks.selective_search import boxes
from cyborgs.masks.source import chunks, in_threads
from cyborgs.views.side import Kind


@dataclass(frozen=True)
class SelectiveSearchBoxes:
    """The boxes of selective search that ORL's filter keeps, best first (``masks/selective_search.py: boxes``)."""

    config: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)

    name: ClassVar[str] = "boxes"
    kind: ClassVar[Kind] = "boxes"
    needs_images: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """As many as the settings allow."""
        return self.config.boxes

    @property
    def identity(self) -> dict[str, Any]:
        """Settings, rules and the library's version."""
        return {"rules": 1, **asdict(self.config), "opencv": cv2.__version__}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Small chunks, since a photo takes a second."""
        return chunks(count, 32)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[NDArray[Any]]:
        """int32 (n, 4) of x, y, width, height for each image, 1 to ``width`` of them."""
        return in_threads(lambda image: boxes(image, self.config), images)


@dataclass(frozen=True)
class SpectralResidual:
    """Saliency of Hou and Zhang (CVPR 2007), OpenCV's, which is computed on 64 x 64 pixels; 255 is the photo's most."""

    name: ClassVar[str] = "saliency"
    kind: ClassVar[Kind] = "saliency"
    width: ClassVar[int] = 0
    needs_images: ClassVar[bool] = True

    @property
    def identity(self) -> dict[str, Any]:
        """Rules and the library's version."""
        return {"rules": 1, "kind": "spectral residual", "opencv": cv2.__version__}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Consecutive chunks."""
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[NDArray[Any]]:
        """uint8 (64, 64) for each image."""
        return [_spectral_residual(image) for image in images]


def _spectral_residual(image: np.ndarray) -> NDArray[np.uint8]:
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA)
    if small.min() == small.max():
        return np.zeros((64, 64), np.uint8)  # a blank photo has no spectrum but rounding errors
    found, map_ = cv2.saliency.StaticSaliencySpectralResidual.create().computeSaliency(small)
    assert found
    scale = float(map_.max())
    levels: NDArray[np.uint8] = np.rint(map_ * (255 / scale if scale > 0 else 0)).astype(np.uint8)
    return levels


@dataclass(frozen=True)
class SaliencyFolder:
    """Saliency maps as 8-bit grey PNGs of the photos' names, of any sizes: a cell is a share of its photo."""

    folder: Path
    names: Sequence[str]
    """The photos', relative to their folder."""
    digest: str
    """Changes with the files (``masks/ground_truth.py: digest_of``)."""

    name: ClassVar[str] = "saliency"
    kind: ClassVar[Kind] = "saliency"
    width: ClassVar[int] = 0
    needs_images: ClassVar[bool] = False

    @property
    def identity(self) -> dict[str, Any]:
        """What files these are."""
        return {"rules": 1, "kind": "folder", "digest": self.digest}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Consecutive chunks, so that a group's number says which photos are in it."""
        return chunks(count, 64)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[NDArray[Any]]:
        """uint8 (h, w) for each photo of the group.

        Raises:
            UserError: a file is missing or no grey picture of 8 bits; names it.
        """
        start = 64 * group
        return [self._read(self.names[i]) for i in range(start, start + len(images))]

    def _read(self, name: str) -> NDArray[np.uint8]:
        path = (self.folder / name).with_suffix(".png")
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
        if found is None or found.ndim != 2 or found.dtype != np.uint8:
            raise UserError(f"{path}: need the saliency of {name} as a grey PNG of 8 bits.")
        return np.asarray(found, np.uint8)


@dataclass(frozen=True)
class NearestNeighbours:
    """The photos of the most similar features (cosine), nearest first, never the photo itself; ties to the lower number.

    All features are computed at once, in the process that makes them.
    """

    features: Callable[[], NDArray[np.float32]]
    """Of all photos, (n, D)."""
    digest: str
    """Changes with the features: of the weights, and how they are used."""
    width: int = 10
    """k."""

    name: ClassVar[str] = "neighbours"
    kind: ClassVar[Kind] = "neighbours"
    needs_images: ClassVar[bool] = False

    @property
    def identity(self) -> dict[str, Any]:
        """Features and number."""
        return {"rules": 1, "features": self.digest, "width": self.width}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """All photos in one, so that their features are needed in one process."""
        return [np.arange(count, dtype=np.int64)]

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[NDArray[Any]]:
        """int64 (k,) for each photo; fewer where there are no more photos."""
        found = self.features().astype(np.float64)
        unit = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        near: list[NDArray[Any]] = []
        for start in range(0, len(unit), 256):
            cosines = unit[start : start + 256] @ unit.T
            for i, row in enumerate(cosines, start):
                row[i] = -np.inf
                near.append(np.argsort(-row, kind="stable")[: min(self.width, len(row) - 1)].astype(np.int64))
        return near
