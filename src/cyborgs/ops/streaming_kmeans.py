"""Spherical k-means of more rows than memory holds: a uniform sample of all rows that went by, then Lloyd's algorithm.

Why a sample and not mini-batches: ``benchmarks/studies/segment_objective.py`` runs both on the same bytes of memory. One pass
of mini-batches moves a centroid less and less, wherever the first batches put it; Lloyd's steps on the sample go on
until the sample's objective stands still, and that of all rows differs from it by what the draw of so many rows can
change. The sample is also uniform over all rows, whatever their order, and the same for every k.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from cyborgs.errors import NotFiniteError
from cyborgs.ops.kmeans import spherical_kmeans
from cyborgs.ops.normalise import no_autocast

SAMPLE_BYTES: Final = 128 * 2**20
"""Memory of the sample; the clustering takes as much again, and a fifth. 65,536 rows of 512, 9,362 of 3,584."""
_SLICE: Final = 2**20
"""Values that are examined at once."""


@final
class StreamingKMeans:
    """Feed rows in any portions; ask for centroids at the end, for one k or several.

    Every row gets a random number from (seed, its place in the stream); the rows with the lowest numbers are kept. So
    the sample is uniform without replacement, holds all rows where they fit, and does not depend on how the stream
    is cut into portions.

    Args:
        width: D, values a row.
        seed: of the sample and of the initial centroids.
        sample_bytes: bound of the sample's memory.
        rows: bound of the sample's rows, where it is lower.
    """

    def __init__(self, width: int, *, seed: int = 0, sample_bytes: int = SAMPLE_BYTES, rows: int | None = None) -> None:
        if width < 1:
            raise ValueError(f"streaming k-means: width must be at least 1, got {width}")
        self.width = width
        self.seed = seed
        self.capacity = max(1, sample_bytes // (4 * width)) if rows is None else rows
        """Rows of the sample at most."""
        if self.capacity < 1:
            raise ValueError(f"streaming k-means: need a sample of at least 1 row, got {self.capacity}")
        self.seen = 0
        """Rows that went by."""
        self._draw = np.random.Generator(np.random.PCG64(seed))
        # Grown by doubling: a small set takes what it needs, and a large one is moved a few times.
        self._rows = torch.empty(0, width)
        self._keys = np.empty(0)
        self._filled = 0

    def __len__(self) -> int:
        """Rows of the sample."""
        return self._filled

    def feed(self, rows: Tensor) -> None:
        """Let ``rows`` (n, D) floating go by, of any length each; they are copied as float32 where they are kept.

        Raises:
            ValueError: another shape.
            NotFiniteError: NaN or infinity.
        """
        if rows.ndim != 2 or rows.shape[1] != self.width or not rows.is_floating_point():
            raise ValueError(
                f"streaming k-means: rows must be (n, {self.width}) floating, got {rows.dtype} {tuple(rows.shape)}"
            )
        step = max(1, _SLICE // self.width)
        for start in range(0, len(rows), step):
            part = rows[start : start + step].detach()
            # A sum is several times as fast; only one that overflows needs the look at each value.
            if not bool(torch.isfinite(part.sum())) and not bool(torch.isfinite(part).all()):
                raise NotFiniteError("streaming k-means: rows hold NaN or infinity")
            self._feed(part)

    def _feed(self, part: Tensor) -> None:
        keys = self._draw.random(len(part))
        self.seen += len(part)
        room = min(self.capacity - self._filled, len(part))
        if room:
            self._reserve(self._filled + room)
            self._rows[self._filled : self._filled + room] = part[:room]
            self._keys[self._filled : self._filled + room] = keys[:room]
            self._filled += room
        if room == len(part):
            return
        # Of the rows kept and those that are new the lowest keys stay: new ones take the places of the highest.
        new = room + np.flatnonzero(keys[room:] < self._keys.max())
        everyone = np.concatenate([self._keys, keys[new]])
        stays = np.zeros(len(everyone), bool)
        stays[np.argpartition(everyone, self.capacity - 1)[: self.capacity]] = True
        places = np.flatnonzero(~stays[: self.capacity])
        entering = new[stays[self.capacity :]]
        self._rows[torch.from_numpy(places)] = part[torch.from_numpy(entering).to(part.device)].to(self._rows)
        self._keys[places] = keys[entering]

    def _reserve(self, count: int) -> None:
        if count <= len(self._rows):
            return
        size = min(self.capacity, max(count, 2 * len(self._rows)))
        larger, keys = torch.empty(size, self.width), np.full(size, np.inf)
        larger[: self._filled], keys[: self._filled] = self._rows[: self._filled], self._keys[: self._filled]
        self._rows, self._keys = larger, keys

    def sample(self) -> Tensor:
        """The rows that are kept, float32 (n, D), a view: do not change it."""
        return self._rows[: self._filled]

    def centroids(
        self, k: int, *, iterations: int = 50, device: torch.device | str = "cpu", start: int | None = None
    ) -> tuple[Tensor, float]:
        """Cluster the sample into ``k``: centroids float32 (k, D) of unit length on the CPU, and the mean cosine.

        An empty cluster goes to the row farthest from its centroid; where there are fewer distinct directions than k
        the surplus centroids repeat them (``ops.kmeans.spherical_kmeans``).

        Args:
            k: at most the rows that went by.
            iterations: of Lloyd's algorithm; it stops where no label changes.
            device: where it runs.
            start: seed of the initial centroids; None: the stream's.

        Raises:
            ValueError: fewer rows went by than k.
        """
        if not 1 <= k <= self._filled:
            raise ValueError(f"streaming k-means: need 1 <= k <= {self._filled} (the rows kept), got {k}")
        x = self.sample().to(device)
        labels, found = spherical_kmeans(x, k, iterations=iterations, seed=self.seed if start is None else start)
        return found.float().cpu(), mean_cosine(x, found, labels)


def mean_cosine(x: Tensor, centroids: Tensor, labels: Tensor | None = None) -> float:
    """Mean cosine of rows (n, D) and their own centroids (k, D), the nearest where no labels (n,) are given.

    A zero row counts 0. In slices, so that neither the products nor the centroids of all rows are held at once.
    """
    total, step = 0.0, max(1, 4 * _SLICE // max(x.shape[1], len(centroids)))
    with torch.no_grad(), no_autocast(x):
        for start in range(0, len(x), step):
            part = x[start : start + step].to(centroids.dtype)
            length = torch.linalg.vector_norm(part, dim=1).clamp_(min=1e-12)
            if labels is None:
                products = (part @ centroids.T).amax(dim=1)
            else:
                products = (part * centroids[labels[start : start + step]]).sum(dim=1)
            total += float((products / length).sum(dtype=torch.float64))
    return total / max(1, len(x))
