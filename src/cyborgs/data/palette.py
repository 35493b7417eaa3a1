"""Colours for label maps, shared by written masks, overlays and the report."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
T = TypeVar("T", bound=np.generic)

# Okabe and Ito's colours, told apart by colour-blind readers; black is left out: it hides dark photos' regions.
_FIRST = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (187, 187, 187),
)


@lru_cache(maxsize=1)
def _table() -> UInt8:
    # Beyond eight no palette is safe for everyone: hues a golden angle apart, lightness in three steps, since
    # lightness is what colour-blind readers keep.
    colours = list(_FIRST)
    for i in range(256 - len(colours)):
        red, green, blue = colorsys.hls_to_rgb((0.1 + i * 0.61803398875) % 1.0, (0.35, 0.55, 0.75)[i % 3], 0.65)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    table = np.array(colours, np.uint8)
    table.setflags(write=False)
    return table


def palette(count: int = 256) -> UInt8:
    """``count`` colours, uint8 (count, 3): the first eight are safe for colour-blind readers."""
    if not 1 <= count <= 256:
        raise ValueError(f"a palette has 1 to 256 colours, asked for {count}")
    return _table()[:count]


def boundaries(labels: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where a pixel differs from its right or lower neighbour; labels (H, W) -> bool (H, W)."""
    edge = np.zeros(labels.shape, bool)
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edge[:-1] |= labels[:-1] != labels[1:]
    return edge


def nearest(labels: NDArray[T], height: int, width: int) -> NDArray[T]:
    """A label map (h, w), or any values of cells, at (height, width): cell i of h covers [i/h, (i+1)/h); nearest neighbour."""
    rows = (2 * np.arange(height) + 1) * labels.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * labels.shape[1] // (2 * width)
    out: NDArray[T] = labels[rows[:, None], columns[None, :]]
    return out


def overlay(image: UInt8, labels: UInt8, *, alpha: float = 0.5, edges: bool = True) -> UInt8:
    """The picture (H, W, 3) under its label map's colours, region borders in white; uint8 (H, W, 3).

    A map of another size is enlarged by nearest neighbour.
    """
    if labels.shape != image.shape[:2]:
        labels = nearest(labels, *image.shape[:2])
    weight = round(alpha * 256)
    mixed = (image.astype(np.uint16) * (256 - weight) + palette()[labels].astype(np.uint16) * weight) >> 8
    out: UInt8 = mixed.astype(np.uint8)
    if edges:
        out[boundaries(labels)] = 255
    return out
