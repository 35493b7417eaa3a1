"""Cosines of pixels and centroids, from a map that is enlarged bilinearly and brought to unit length, in strips.

Enlarging the inner products gives those of the enlarged features, since both are linear. Their length is not: but the
square of a sum of four neighbours is a sum of the neighbours' products, so five products a cell, taken once, give the
length of every pixel's feature without ever making one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UInt8 = NDArray[np.uint8]

STRIP = 1_000_000
"""Cosines that are held at once: 4 MB, which stay in a cache."""


@dataclass(frozen=True)
class _Axis:
    """Where the pixels of one axis lie between the cells: pixel = (1 - t) cell[low] + t cell[high]."""

    low: Tensor
    high: Tensor
    t: Tensor

    @staticmethod
    def of(cells: int, pixels: int, device: torch.device) -> _Axis:
        """Half-pixel centres, clamped at the edges: ``align_corners=False``."""
        places = torch.arange(pixels, dtype=torch.float64)
        centre = ((places + 0.5) * (cells / pixels) - 0.5).clamp_(0, cells - 1)
        low = centre.floor()
        return _Axis(
            low.long().to(device), low.add(1).clamp_(max=cells - 1).long().to(device), (centre - low).to(device)
        )


class Enlarged:
    """The cosines of one photo's pixels and K centroids, never all at once unless asked for.

    Args:
        centroids: float32 (K, D), unit length.
        joined: float32 (D, h, w), the map; of any length.
        height: of the photo, in pixels.
        width: of the photo, in pixels.
    """

    def __init__(self, centroids: Tensor, joined: Tensor, height: int, width: int) -> None:
        device = joined.device
        self.size = height, width
        self._scores = torch.einsum("kd,dhw->khw", centroids.to(device), joined)
        self._rows = _Axis.of(joined.shape[1], height, device)
        self._columns = _Axis.of(joined.shape[2], width, device)
        self._squares, self._below = _lengths(joined, self._columns)

    @property
    def clusters(self) -> int:
        """K."""
        return len(self._scores)

    def _products(self, chosen: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """(rows, inner products float32 (K or len(chosen), rows, W)) from top to bottom.

        Pixel rows between the same two rows of cells are made together: the cells' rows are enlarged once each.
        """
        height, width = self.size
        scores = self._scores if chosen is None else self._scores[chosen]
        columns, rows = self._columns, self._rows
        s, t = columns.t.float(), rows.t.float()
        most = max(1, STRIP // (len(scores) * width))
        wide: dict[int, Tensor] = {}

        def row(i: int) -> Tensor:
            if i not in wide:
                wide[i] = torch.lerp(
                    scores[:, i].index_select(1, columns.low), scores[:, i].index_select(1, columns.high), s
                )
            return wide[i]

        lows, highs = rows.low.tolist(), rows.high.tolist()
        y = 0
        while y < height:
            end = y + 1
            while end < height and lows[end] == lows[y] and end - y < most:
                end += 1
            first, last = row(lows[y]), row(highs[y])
            part = slice(y, end)
            yield part, torch.addcmul(first[:, None], (last - first)[:, None], t[None, part, None])
            wide = {i: values for i, values in wide.items() if i >= lows[y]}
            y = end

    def strips(self, chosen: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """(rows, cosines float32 (K or len(chosen), rows, W)) from top to bottom; a zero feature has cosine 0."""
        for part, found in self._products(chosen):
            yield part, found.mul_(self._inverse_length(part)).clamp_(-1, 1)

    def labels(self) -> tuple[UInt8, NDArray[np.float32]]:
        """The nearest cluster of each pixel, uint8 (H, W), ties to the lowest, and its cosine, float32 (H, W)."""
        labels = np.empty(self.size, np.uint8)
        cosine = np.empty(self.size, np.float32)
        k = self.clusters
        # argmax along K is ten times as slow as a maximum: so a second maximum, of the codes of those that reach the first.
        codes = torch.arange(k - 1, -1, -1, dtype=torch.uint8, device=self._scores.device)[:, None, None]
        for part, found in self._products():
            best = found.amax(dim=0)
            reach = (found >= best).view(torch.uint8).mul_(codes).amax(dim=0)
            labels[part] = (k - 1 - reach).cpu().numpy()
            cosine[part] = best.mul_(self._inverse_length(part)).clamp_(-1, 1).cpu().numpy()
        return labels, cosine

    def cosines(self, chosen: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
        """Cosines with all clusters, or with the ``chosen`` ones: float32 (K, H, W), 4 K bytes a pixel."""
        which = None if chosen is None else torch.from_numpy(np.asarray(chosen, np.int64)).to(self._scores.device)
        out = np.empty((self.clusters if chosen is None else len(chosen), *self.size), np.float32)
        for part, found in self.strips(which):
            out[:, part] = found.cpu().numpy()
        return out

    def _inverse_length(self, part: slice) -> Tensor:
        """float32 (rows, W); 0 where the feature is zero."""
        low, high, t = self._rows.low[part], self._rows.high[part], self._rows.t[part, None]
        squares = (1 - t) ** 2 * self._squares[low] + t**2 * self._squares[high] + 2 * t * (1 - t) * self._below[low]
        zero = squares <= 1e-24
        return squares.masked_fill(zero, 1).rsqrt().masked_fill(zero, 0).float()


def _lengths(joined: Tensor, columns: _Axis) -> tuple[Tensor, Tensor]:
    """Of the map enlarged along its rows: squared lengths (h, W), and products with the row below (h, W); float64."""

    def products(a: Tensor, b: Tensor, height: int, width: int) -> Tensor:
        found = (a * b).sum(dim=0).double()
        return torch.nn.functional.pad(found, (0, width - found.shape[1], 0, height - found.shape[0]))

    _, h, w = joined.shape
    own = products(joined, joined, h, w)
    right = products(joined[:, :, :-1], joined[:, :, 1:], h, w)
    down = products(joined[:, :-1], joined[:, 1:], h, w)
    crossed = products(joined[:, :-1, :-1], joined[:, 1:, 1:], h, w)
    crossed += products(joined[:, :-1, 1:], joined[:, 1:, :-1], h, w)
    low, high, s = columns.low, columns.high, columns.t
    squares = (1 - s) ** 2 * own[:, low] + s**2 * own[:, high] + 2 * s * (1 - s) * right[:, low]
    below = (1 - s) ** 2 * down[:, low] + s**2 * down[:, high] + s * (1 - s) * crossed[:, low]
    return squares, below


def of_cells(centroids: Tensor, joined: Tensor) -> tuple[UInt8, NDArray[np.float32]]:
    """The nearest cluster of each cell, uint8 (h, w), ties to the lowest, and its cosine, float32 (h, w)."""
    scores, labels = torch.einsum("kd,dhw->khw", centroids.to(joined.device), joined).max(dim=0)
    length = torch.linalg.vector_norm(joined, dim=0)
    cosine = (scores / length.clamp(min=1e-12)).clamp_(-1, 1)
    return labels.to(torch.uint8).cpu().numpy(), cosine.cpu().numpy()
