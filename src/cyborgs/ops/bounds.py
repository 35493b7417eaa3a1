"""Which points keep their cluster for certain: an exact short cut of k-means for points with a decaying spectrum.

With an orthonormal basis of a subspace, x.c = h(x).h(c) + t(x).t(c), a head of a few coordinates and a tail, and by
Cauchy and Schwarz x.c <= (h(x), |t(x)|).(h(c), |t(c)|): one product of short vectors bounds all N x K cosines from
above. A point whose own centroid beats the bounds of all others need not be compared in full. Feature maps of networks
hold nearly all of their energy in a fifth of the axes, which settles three points of four.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLE = 2048
"""Points from which the axes are taken; axes that fit badly cost time, never correctness."""
SMALLEST = (16_384, 64)
"""Points and centroids below which the plain comparison is faster."""
LARGEST_TAIL = 0.25
"""Share of the points' length (root mean square) in the tail above which the bounds settle too little."""
BLOCK = 8
"""Centroids are padded to a multiple of this: BLAS kernels lose up to a fifth on a ragged edge."""


def slices(points: Tensor, count: int, width: int, size: int = 2**20) -> Iterator[slice]:
    """Slices of rows such that rows x width is a constant: ``size`` on a CPU, where what one operator leaves should
    still lie in the cache for the next (4 MB of float32), larger elsewhere.

    A size taken from free memory would change bits from run to run.
    """
    rows = max(1, (size if points.device.type == "cpu" else 2**24) // width)
    for i in range(0, count, rows):
        yield slice(i, min(i + rows, count))


def padded(centroids: Tensor) -> Tensor:
    """The centroids with rows of zeros up to a multiple of BLOCK."""
    return torch.nn.functional.pad(centroids, (0, 0, 0, -len(centroids) % BLOCK))


def products_of(rows: Tensor, table: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    """``rows @ table.T`` into ``out``, plus a ``bias`` for the first of the columns where there is one."""
    torch.mm(rows, table.T, out=out)
    if bias is not None:
        out[:, : len(bias)] += bias
    return out


@dataclass(frozen=True)
class Bounds:
    """Heads of N points: their coordinates on the main axes, and the length of what remains."""

    axes: Tensor
    """(D, m), orthonormal."""
    heads: Tensor
    """(N, m + 1)."""
    longest: float
    """Largest length of a point."""

    @staticmethod
    def of(points: Tensor, k: int) -> Bounds | None:
        """The bounds of ``points`` (N, D), or None where they would not pay (on a GPU, where products are cheap)."""
        n, d = points.shape
        m = d * 3 // 16 // BLOCK * BLOCK - 1  # with the tail a multiple of BLOCK: 95 + 1 of 512
        if points.device.type != "cpu" or n < SMALLEST[0] or k < SMALLEST[1] or m < 1:
            return None
        sample = points[:: max(1, n // SAMPLE)]
        energy, axes = torch.linalg.eigh(sample.T @ sample)
        if energy[:-m].sum() > LARGEST_TAIL**2 * energy.sum():
            return None
        axes = axes[:, -m:].contiguous()
        heads = points.new_empty(n, m + 1)
        for part in slices(points, n, d):
            heads[part] = _head(points[part], axes)
        longest = float(torch.linalg.vector_norm(heads, dim=1).max())
        return Bounds(axes, heads, longest)

    def unsettled(
        self, points: Tensor, centroids: Tensor, bias: Tensor | None, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Indices of the points whose best centroid may be another than ``labels``, and all points' own scores.

        ``bias`` (k,) is added to the products, as in the scores (None: zeros).
        """
        k = len(centroids)
        corners = padded(_head(centroids, self.axes))
        # The rounding of a product of D terms, generously.
        reach = self.longest * float(centroids.square().sum(dim=1).max()) ** 0.5
        margin = 64 * torch.finfo(points.dtype).eps * max(reach, self.longest**2)
        scores = torch.empty(len(points), dtype=points.dtype)
        unsure = torch.empty(len(points), dtype=torch.bool)
        # Memory that is used again and again: fresh pages cost more than the arithmetic.
        steps = list(slices(points, len(points), max(points.shape[1], len(corners))))
        products = points.new_empty(steps[0].stop, points.shape[1])
        table = points.new_empty(steps[0].stop, len(corners))
        for part in steps:
            own, score = labels[part], scores[part]
            product = torch.index_select(centroids, 0, own, out=products[: len(own)]).mul_(points[part])
            torch.sum(product, dim=1, out=score)
            if bias is not None:
                score += bias[own]
            above = products_of(self.heads[part], corners, bias, table[: len(own)])[:, :k]
            above.scatter_(1, own.unsqueeze(1), -torch.inf)
            torch.ge(above.amax(dim=1), score - margin, out=unsure[part])
        return torch.nonzero(unsure).squeeze(1), scores


def _head(rows: Tensor, axes: Tensor) -> Tensor:
    """(n, D) -> (n, m + 1): coordinates on the axes, and an upper bound of the length of the rest."""
    near = rows @ axes
    squares = torch.linalg.vector_norm(rows, dim=1).square_()
    # The difference of squares carries their rounding: never let it make the tail too short.
    slack = 64 * torch.finfo(rows.dtype).eps * squares
    rest = (squares - torch.linalg.vector_norm(near, dim=1).square_()).clamp_(min=0) + slack
    return torch.cat([near, rest.sqrt().unsqueeze(1)], dim=1)
