"""What rides along with the views beside label maps: prepared artefacts, brought into each view. No torch here.

A name gives, in ``Batch.side`` (B images, v the number of a view, in which all follows crop and mirror):

- saliency: ``NAME/v`` float32 (B, g, g), the mean of each grid cell, 0 to 1;
- boxes: ``NAME/v`` float32 (B, n, 4), x0, y0, x1, y1 in the view's pixels, cut off at its borders, and
  ``NAME/v/valid`` bool (B, n), which of them exist and are seen at all; the others are 0;
- neighbours: ``NAME`` int64 (B, k), numbers of photos, -1 where there are fewer; and where a crop shows one of them,
  ``NAME/shown`` int64 (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cyborgs.structures import ViewGeometry
from cyborgs.views.config import ViewSpec
from cyborgs.views.labels import runs
from cyborgs.views.sample import OneView, Photo

Kind = Literal["boxes", "saliency", "neighbours"]


class Artefact(Protocol):
    """What was prepared of each photo. It pickles, and workers may read it at random."""

    @property
    def kind(self) -> Kind:
        """What it holds, as ``Photo.prepared`` says."""

    @property
    def width(self) -> int:
        """Boxes or neighbours of a photo, at most: the size of their tensors. 0 for maps."""

    def __len__(self) -> int:
        """Photos."""

    def __getitem__(self, index: int, /) -> NDArray[Any]:
        """Of photo ``index``."""


@dataclass(frozen=True)
class MadeUp:
    """An artefact of the right shape and no meaning, for rehearsals."""

    kind: Kind
    width: int
    count: int = 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int, /) -> NDArray[Any]:
        if self.kind == "boxes":
            return np.tile(np.array((0, 0, 32, 32), np.int32), (self.width, 1))
        if self.kind == "neighbours":
            return (index + 1 + np.arange(self.width)) % self.count
        return np.pad(np.full((8, 8), 255, np.uint8), 4)


def side_data(
    rides: dict[str, Artefact], photo: Photo, views: Sequence[OneView], spec: ViewSpec
) -> dict[str, NDArray[Any]]:
    """What one sample adds to ``Batch.side``.

    Args:
        rides: what rides along, by name.
        photo: the sample's photo.
        views: its views.
        spec: their settings.
    """
    side: dict[str, NDArray[Any]] = {}
    for name, artefact in rides.items():
        if artefact.kind == "neighbours":
            near = np.full(artefact.width, -1, np.int64)
            own = photo.prepared[name]
            near[: len(own)] = own
            side[name] = near
            shown = [view.photo.index for view, crop in zip(views, spec.crops, strict=True) if crop.photo == name]
            if shown:
                side[f"{name}/shown"] = np.array(shown[0], np.int64)
            continue
        for v, view in enumerate(views):
            known = view.photo.prepared[name]
            if artefact.kind == "saliency":
                side[f"{name}/{v}"] = grid_means(known, view.geometry, spec.size_of(v), spec.grid_of(v))
            else:
                boxes, valid = boxes_in_view(known, view.geometry, spec.size_of(v), artefact.width)
                side[f"{name}/{v}"], side[f"{name}/{v}/valid"] = boxes, valid
    return side


def grid_means(values: NDArray[np.uint8], geometry: ViewGeometry, size: int, grid: int) -> NDArray[np.float32]:
    """float32 (grid, grid), 0 to 1: means of a uint8 (h, w) map under the view's geometry, resampled as ``grid_labels``."""
    g = geometry
    rows = _shares(g.y0, g.h, g.image_h, values.shape[0], size, grid, False)
    columns = _shares(g.x0, g.w, g.image_w, values.shape[1], size, grid, bool(g.flip))
    means: NDArray[np.float32] = (rows @ values @ columns.T / 255).astype(np.float32)
    return means


def _shares(start: int, length: int, image: int, cells: int, size: int, grid: int, flip: bool) -> NDArray[np.float64]:
    """(grid, cells): share of a grid cell's pixels along an axis that lie in each map cell."""
    map_cell, grid_cell, count = runs(start, length, image, cells, size, grid, flip)
    shares = np.zeros((grid, cells))
    np.add.at(shares, (grid_cell, map_cell), count)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


def boxes_in_view(
    boxes: NDArray[Any], geometry: ViewGeometry, size: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Boxes, (n, 4) of x, y, width, height in the photo, as x0, y0, x1, y1 in the view: float32 (width, 4), bool (width,)."""
    g = geometry
    made, valid = np.zeros((width, 4), np.float32), np.zeros(width, np.bool_)
    x, y, w, h = np.asarray(boxes[:width], np.float64).reshape(-1, 4).T
    x0, x1 = (((edge - g.x0) * size / g.w).clip(0, size) for edge in (x, x + w))
    y0, y1 = (((edge - g.y0) * size / g.h).clip(0, size) for edge in (y, y + h))
    if g.flip:
        x0, x1 = size - x1, size - x0
    seen = (x1 > x0) & (y1 > y0)
    valid[: len(seen)] = seen
    made[: len(seen)][seen] = np.stack([x0, y0, x1, y1], axis=1)[seen]
    return made, valid
