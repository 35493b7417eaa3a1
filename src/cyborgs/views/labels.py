"""A label map seen through a view: the majority label of every cell of the grid. No torch here."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cyborgs.structures import ViewGeometry

Labels = NDArray[np.uint8]


def grid_labels(label_map: Labels, geometry: ViewGeometry, size: int, grid: int) -> Labels:
    """uint8 (grid, grid): majority labels of a uint8 (h, w) map under the view's geometry; ties to the lowest label.

    The map is thought resampled to the view's size x size pixels, nearest neighbour: pixel i of a side has its centre
    at (i + 1/2) / size of the crop; it lies in map cell floor(y / image_h * h) and in grid cell floor(i * grid / size).
    Counted per run of pixels that share both, hence by at most (h + grid) x (w + grid) numbers, not size x size.
    """
    map_h, map_w = label_map.shape
    g = geometry
    rows, row_cells, row_counts = runs(g.y0, g.h, g.image_h, map_h, size, grid, False)
    columns, column_cells, column_counts = runs(g.x0, g.w, g.image_w, map_w, size, grid, bool(g.flip))
    span = int(label_map.max()) + 1
    keys = (row_cells * (grid * span))[:, None] + column_cells * span
    keys += label_map[rows].take(columns, axis=1)
    counts = np.bincount(keys.ravel(), np.outer(row_counts, column_counts).ravel(), grid * grid * span)
    # argmax takes the first of equals, hence the lowest label; the counts are whole numbers, so equals are equal.
    majority: Labels = counts.reshape(grid, grid, span).argmax(2).astype(np.uint8)
    return majority


def runs(
    start: int, length: int, image: int, cells: int, size: int, grid: int, flip: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Runs of pixels along one axis that share map cell and grid cell: (map cell, grid cell, pixels in the run)."""
    odd, grid_cell = _pixels(size, grid)
    # Whole numbers: (start + (2i + 1) / (2 size) * length) / image * cells, rounded down without rounding errors.
    map_cell = (2 * size * start + odd * length) * cells // (2 * size * image)
    if flip:
        map_cell = map_cell[::-1]
    both = map_cell + cells * grid_cell
    inner = np.flatnonzero(both[1:] != both[:-1])
    ends = np.empty(len(inner) + 2, np.int64)
    ends[0], ends[-1] = 0, size
    np.add(inner, 1, out=ends[1:-1])
    first = ends[:-1]
    return map_cell[first], grid_cell[first], (ends[1:] - first).astype(np.float64)


@lru_cache(maxsize=16)
def _pixels(size: int, grid: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """2i + 1 and the grid cell of every pixel i of a side."""
    i = np.arange(size, dtype=np.int64)
    return 2 * i + 1, i * grid // size
