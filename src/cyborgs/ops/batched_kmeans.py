"""Lloyd's k-means of several problems of one size, in fixed shapes: nothing is read back from the device.

For a training step, where waiting for a device costs more than iterations that change nothing: there are always as many,
an empty cluster is placed anew by masks, and what is the matter with the points (NaN) shows in the result. On a CPU, where
nothing waits, the problems go one by one to ``ops/kmeans.py``, which stops when no label changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cyborgs.errors import NotFiniteError
from cyborgs.ops.bounds import slices
from cyborgs.ops.kmeans import CANCELLED, euclidean_kmeans, spherical_kmeans
from cyborgs.ops.normalise import at_least_float32, no_autocast

SPARE = 64
"""Points beyond twice k among which distinct initial centroids are looked for."""


def batched_kmeans(
    x: Tensor,
    k: Sequence[int],
    seeds: Sequence[int],
    *,
    iterations: int = 20,
    start: Tensor | None = None,
    spherical: bool = True,
) -> tuple[Tensor, Tensor]:
    """``spherical_kmeans`` (or ``euclidean_kmeans``) of S problems, each with its own k and seed.

    ``x`` (S, N, D) floating -> labels (S, N) int64 and centroids (S, K, D), K the largest k, float32 (float64 where ``x``
    is); centroids beyond a problem's k are zeros, which no label names. ``start`` (S, K, D): initial centroids.
    Ties go to the lowest index; an emptied cluster to the point farthest from its
    centroid; zero rows get label 0 and count in nothing else (spherical). Of fewer distinct points than k some
    centroids are equal, and only the first of them has points. Memory beyond ``x``: two copies of it, and a slice of
    N x K of constant size. Without gradient; deterministic.

    On a CPU each problem is computed by itself, so that its bits do not depend on the others, and no longer than its
    labels change; elsewhere always ``iterations`` times.

    Raises:
        ValueError: shapes do not fit, or a k is not between 1 and N. NaN and infinity go through: results are NaN.
    """
    if x.ndim != 3 or not x.is_floating_point() or not x.numel() or not len(x) == len(k) == len(seeds):
        raise ValueError(f"k-means: x must be (S, N, D) floating, with S k and seeds, got {x.dtype} {tuple(x.shape)}")
    if not all(1 <= one <= x.shape[1] for one in k) or iterations < 1:
        raise ValueError(f"k-means: need 1 <= k <= {x.shape[1]} and iterations >= 1, got k={k}, {iterations}")
    if start is not None and start.shape != (len(x), max(k), x.shape[2]):
        raise ValueError(f"k-means: start must be {(len(x), max(k), x.shape[2])}, got {tuple(start.shape)}")
    with torch.no_grad(), no_autocast(x):
        if not may_read(x):
            return _run(x, k, seeds, iterations, start, spherical)
        alone = [
            _alone(x[i], own, seed, iterations, None if start is None else start[i, :own], spherical)
            for i, (own, seed) in enumerate(zip(k, seeds, strict=True))
        ]
        padded = [torch.nn.functional.pad(c, (0, 0, 0, max(k) - len(c))) for _, c in alone]
        return torch.stack([labels for labels, _ in alone]), torch.stack(padded)


def may_read(x: Tensor) -> bool:
    """Whether reading values of ``x`` costs no wait."""
    return x.device.type == "cpu"


def _alone(
    x: Tensor, k: int, seed: int, iterations: int, start: Tensor | None, spherical: bool
) -> tuple[Tensor, Tensor]:
    """One problem (N, D), which may be looked at."""
    single = spherical_kmeans if spherical else euclidean_kmeans
    try:
        return single(x, k, iterations=iterations, seed=seed, start=start)
    except NotFiniteError:  # which must come to light where it does on other devices: at the next logged step
        found = _run(x[None], [k], [seed], iterations, None if start is None else start[None], spherical)
        return found[0][0], found[1][0]


def _run(
    x: Tensor, k: Sequence[int], seeds: Sequence[int], iterations: int, start: Tensor | None, spherical: bool
) -> tuple[Tensor, Tensor]:
    points = at_least_float32(x)
    if spherical:
        points, counted = _unit(points)
        if start is not None:
            start = _unit(start.to(points.dtype))[0]
    else:
        # Distances come from products, which lose digits far from the origin.
        centre = points.mean(dim=1, keepdim=True, dtype=torch.float64).to(points.dtype)
        points = points - centre
        scale = torch.linalg.vector_norm(points, float("inf"), dim=(1, 2), keepdim=True)
        scale = scale.clamp_(min=torch.finfo(points.dtype).tiny)
        points /= scale
        counted = torch.ones(points.shape[:2], dtype=torch.bool, device=x.device)
        if start is not None:
            start = (start.to(points.dtype) - centre) / scale
    largest = max(k)
    own = torch.arange(largest, device=x.device) < _sent(torch.tensor(k), x.device).unsqueeze(1)
    centroids = _draw(points, counted, largest, seeds, spherical) if start is None else start
    labels, scores = _assign(points, centroids, own, spherical)
    for _ in range(iterations):
        centroids = _update(points, counted, labels, scores, centroids, own, spherical)
        labels, scores = _assign(points, centroids, own, spherical)
    centroids = torch.where(own.unsqueeze(2), centroids if spherical else centroids * scale + centre, 0)
    return labels, centroids


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device, which nobody waits for."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def _unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit length (zero rows stay), and which are not zero. NaN stays NaN, and infinity becomes it."""
    # Squares of very small or large entries leave the range of float32: the largest entry becomes 1 before.
    peak = torch.linalg.vector_norm(x, float("inf"), dim=2, keepdim=True)
    zero = peak == 0
    rows = x / peak.masked_fill(zero, 1)
    rows /= torch.linalg.vector_norm(rows, dim=2, keepdim=True).masked_fill(zero, 1)
    return rows, ~zero.squeeze(2)


def _draw(points: Tensor, counted: Tensor, k: int, seeds: Sequence[int], spherical: bool) -> Tensor:
    """Initial centroids (S, k, D): points in an order drawn by seed, distinct ones first."""
    s, n, d = points.shape
    count = min(n, 2 * k + SPARE)
    # The order is numpy's, so that all devices draw the same.
    drawn = np.stack([np.random.Generator(np.random.PCG64(seed)).permutation(n)[:count] for seed in seeds])
    order = _sent(torch.from_numpy(drawn), points.device)
    rows = points.gather(1, order.unsqueeze(2).expand(s, count, d))
    wide = rows.double()
    squares = wide.square().sum(dim=2)
    gaps = torch.baddbmm(squares.unsqueeze(2) + squares.unsqueeze(1), wide, wide.transpose(1, 2), alpha=-2)
    # Rows that differ by the rounding of their normalisation; and no finer than the products above.
    same = max((8 * torch.finfo(points.dtype).eps) ** 2, 64 * torch.finfo(torch.float64).eps)
    twin = (gaps <= same).tril(-1).any(dim=2)
    last = 2 * (~counted.gather(1, order)).int() + twin.int()
    place = torch.argsort(last, dim=1, stable=True)[:, :k]
    centroids = rows.gather(1, place.unsqueeze(2).expand(s, k, d))
    if spherical:  # where there are too few rows that are not zero
        axis = torch.zeros_like(centroids[:, :1])
        axis[..., 0] = 1
        first = torch.where(counted.any(dim=1).view(s, 1, 1), centroids[:, :1], axis)
        centroids = torch.where((last.gather(1, place) >= 2).unsqueeze(2), first, centroids)
    return centroids


def _assign(points: Tensor, centroids: Tensor, own: Tensor, spherical: bool) -> tuple[Tensor, Tensor]:
    """Best centroid of each point among its problem's own, (S, N), and its score x.c, or x.c - |c|^2 / 2."""
    s, n, d = points.shape
    bias = centroids.new_zeros(own.shape) if spherical else centroids.square().sum(dim=2) / -2
    bias = bias.masked_fill(~own, -torch.inf).unsqueeze(1)
    labels = torch.empty(s, n, dtype=torch.int64, device=points.device)
    scores = torch.empty(s, n, dtype=points.dtype, device=points.device)
    for part in slices(points, n, s * max(d, own.shape[1])):
        found = torch.baddbmm(bias, points[:, part], centroids.transpose(1, 2))
        scores[:, part], labels[:, part] = found.max(dim=2)
    return labels, scores


def _update(
    points: Tensor,
    counted: Tensor,
    labels: Tensor,
    scores: Tensor,
    centroids: Tensor,
    own: Tensor,
    spherical: bool,
) -> Tensor:
    """Means of the clusters, on the sphere or not; empty clusters are placed anew."""
    k = own.shape[1]
    sums, counts = _sums(points, labels, k, counted)
    usable = (counts > 0).unsqueeze(2)
    if spherical:
        lengths = torch.linalg.vector_norm(sums, dim=2, keepdim=True)
        usable &= ~(lengths <= CANCELLED)  # opposite points cancel: their centroid stays where it is
        means = sums / lengths.masked_fill(~usable, 1)
    else:
        means = sums / counts.clamp(min=1).unsqueeze(2)
    result = torch.where(usable, means.to(points.dtype), centroids)
    distance = 2 - 2 * scores if spherical else points.square().sum(dim=2) - 2 * scores
    # A point at its centroid, or alone in its cluster, has nothing to gain.
    distance = distance.masked_fill(~counted | (counts.gather(1, labels) < 2), 0)
    gains, farthest = torch.sort(distance, dim=1, descending=True, stable=True)
    empty = (counts == 0) & own
    rank = (empty.cumsum(dim=1) - 1).clamp_(min=0)
    placed = empty & (gains.gather(1, rank) > 8 * torch.finfo(points.dtype).eps)
    chosen = points.gather(1, farthest.gather(1, rank).unsqueeze(2).expand(-1, -1, points.shape[2]))
    return torch.where(placed.unsqueeze(2), chosen, result)


def _sums(points: Tensor, labels: Tensor, k: int, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Sums (S, k, D) float64 and numbers (S, k) int64 of the points (S, N, D) of each cluster, labels (S, N).

    ``counted`` (S, N) bool: which points count in the numbers; the others must be zeros. By a product, because
    ``index_add_`` uses atomics on a GPU, whose order changes from run to run.
    """
    s, n, d = points.shape
    sums = torch.zeros(s, k, d, dtype=torch.float64, device=points.device)
    counts = labels.new_zeros(s, k)
    names = torch.arange(k, device=labels.device).view(1, k, 1)
    for part in slices(points, n, s * max(k, d)):
        members = labels[:, None, part] == names
        sums += members.to(points.dtype) @ points[:, part]
        counts += (members & counted[:, None, part]).sum(dim=2)
    return sums, counts
