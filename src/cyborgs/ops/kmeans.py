"""Lloyd's k-means in torch, on the device that holds the points: spherical, and Euclidean (Table 2f)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cyborgs.ops.normalise import at_least_float32, no_autocast

SLICE = 2**21
"""Entries of the N x K matrix that exist at a time. A constant: a size taken from free memory would change bits."""
ROWS = 1024
"""Rows that are prepared at a time: few enough to stay in the cache."""
BLOCK = 16
"""Centroids are padded with zeros to a multiple of this: BLAS kernels lose up to a fifth on a ragged edge."""


def spherical_kmeans(
    x: Tensor, k: int, *, iterations: int = 20, seed: int = 0, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Maximise the mean of cos(x_i, c_label(i)): rows of ``x`` on the unit sphere, centroids on it too.

    ``x`` (N, D) floating, of any length per row -> labels (N,) int64, the assignment (largest cosine, ties to the
    lowest index) to the returned centroids (k, D) of unit length, float32 (float64 where ``x`` is). No gradient.
    ``start`` (k, D): initial centroids; otherwise rows of ``x`` drawn by ``seed``, equally on every device.
    Stops early when no label changes. A cluster that runs empty goes to the point farthest from its centroid.
    Zero rows get label 0 and are left out of means and draws. Where there are fewer distinct directions than k, the
    surplus centroids repeat them. Memory beyond ``x``: one copy of it and a slice of N x K of constant size.
    Deterministic for a fixed number of threads. Raises ValueError for NaN or infinity, k < 1, no points.
    """
    _check(x, k, iterations, start)
    with torch.no_grad(), no_autocast(x):
        points, nonzero = _on_sphere(x)
        if start is not None:
            start, kept = _on_sphere(start.to(x.device))
            if kept is not None:
                raise ValueError("spherical_kmeans: a row of start is zero")
            start = start.to(points.dtype)
        found, centroids = _lloyd(points, k, iterations, seed, start, spherical=True)
        if nonzero is None:
            return found, centroids
        labels = found.new_zeros(len(x))
        labels[nonzero] = found
        return labels, centroids


def euclidean_kmeans(
    x: Tensor, k: int, *, iterations: int = 20, seed: int = 0, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Minimise the mean of |x_i - c_label(i)|^2: nothing is normalised, a centroid is the mean of its points.

    Arguments, result and errors are those of ``spherical_kmeans``; a zero row is a point like any other.
    """
    _check(x, k, iterations, start)
    with torch.no_grad(), no_autocast(x):
        points = at_least_float32(x).contiguous()
        if not bool(torch.isfinite(torch.linalg.vector_norm(points, float("inf"), dim=1)).all()):
            raise ValueError("k-means: x holds NaN or infinity")
        # Distances come from products, which lose digits far from the origin.
        centre = points.mean(dim=0, dtype=torch.float64).to(points.dtype)
        points = points - centre
        scale = torch.linalg.vector_norm(points, float("inf")).clamp_(min=torch.finfo(points.dtype).tiny)
        points /= scale
        if start is not None:
            start = (start.to(x.device, points.dtype) - centre) / scale
        labels, centroids = _lloyd(points, k, iterations, seed, start, spherical=False)
        return labels, centroids * scale + centre


def _check(x: Tensor, k: int, iterations: int, start: Tensor | None) -> None:
    if x.ndim != 2 or not x.is_floating_point() or not x.numel():
        raise ValueError(f"k-means: x must be (N, D) floating with N, D >= 1, got {x.dtype} {tuple(x.shape)}")
    if k < 1 or iterations < 1:
        raise ValueError(f"k-means: k and iterations must be at least 1, got k={k}, iterations={iterations}")
    if start is not None and start.shape != (k, x.shape[1]):
        raise ValueError(f"k-means: start must be ({k}, {x.shape[1]}), got {tuple(start.shape)}")


def _on_sphere(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Rows of unit length, and the indices of the rows that are not zero (None: all of them)."""
    points = torch.empty(x.shape, dtype=x.dtype if x.dtype == torch.float64 else torch.float32, device=x.device)
    lengths = torch.empty(len(x), 1, dtype=torch.float64, device=x.device)
    for i in range(0, len(x), ROWS):
        # In float64, because squares of very small or large entries leave the range of float32.
        part = x[i : i + ROWS].double()
        length = torch.linalg.vector_norm(part, dim=1, keepdim=True, out=lengths[i : i + ROWS])
        torch.div(part, length.clamp(min=torch.finfo(torch.float64).tiny), out=part)
        points[i : i + ROWS] = part
    if not bool(torch.isfinite(lengths).all()):
        raise ValueError("k-means: x holds NaN or infinity")
    zero = (lengths == 0).squeeze(1)
    if not bool(zero.any()):
        return points, None
    nonzero = torch.nonzero(~zero).squeeze(1)
    return points[nonzero], nonzero


def _lloyd(
    points: Tensor, k: int, iterations: int, seed: int, start: Tensor | None, *, spherical: bool
) -> tuple[Tensor, Tensor]:
    """The loop of both variants, on points that are prepared."""
    if not len(points):  # nothing but zero rows: any unit vector will do
        axis = torch.zeros(k, points.shape[1], dtype=points.dtype, device=points.device)
        axis[:, 0] = 1
        return torch.zeros(0, dtype=torch.int64, device=points.device), axis
    centroids = points[_draw(points, k, seed)] if start is None else start
    labels, scores = _assign(points, centroids, spherical)
    for _ in range(iterations):
        centroids = _update(points, labels, scores, centroids, spherical)
        previous = labels
        labels, scores = _assign(points, centroids, spherical)
        if torch.equal(labels, previous):
            break
    # Fewer distinct points than k: repeats come last, so that no label ever names them.
    repeats = torch.arange(k, device=points.device) % len(centroids)
    return labels, centroids[repeats]


def _draw(points: Tensor, k: int, seed: int) -> Tensor:
    """Indices of at most k points, drawn by seed, no two of them equal.

    The order is numpy's, so that all devices draw the same; most often the first k of it are distinct and done.
    """
    order = torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).permutation(len(points))).to(points.device)
    same = 8 * torch.finfo(points.dtype).eps  # rows that differ by the rounding of their normalisation
    chosen = order[:0]
    position, size = 0, k
    while len(chosen) < k and position < len(order):
        block = order[position : position + size]
        position, size = position + size, max(k, ROWS)
        block = block[_far_from(points, block, chosen, same)]
        while len(block) and len(chosen) < k:
            head = block[: k - len(chosen)]
            twin = torch.cdist(points[head], points[head], compute_mode="donot_use_mm_for_euclid_dist") <= same
            head = head[~twin.tril(-1).any(dim=1)]
            chosen = torch.cat([chosen, head])
            block = block[_far_from(points, block, head, same)]
    return chosen


def _far_from(points: Tensor, block: Tensor, chosen: Tensor, same: float) -> Tensor:
    """Which points of ``block`` differ from all of ``chosen``."""
    if not len(chosen):
        return torch.ones(len(block), dtype=torch.bool, device=points.device)
    gap = torch.cdist(points[block], points[chosen], compute_mode="donot_use_mm_for_euclid_dist")
    return gap.amin(dim=1) > same


def _assign(points: Tensor, centroids: Tensor, spherical: bool) -> tuple[Tensor, Tensor]:
    """Best centroid of each point, and its score x.c, or x.c - |c|^2 / 2, whose order is that of -|x - c|^2."""
    k = len(centroids)
    width = -(-k // BLOCK) * BLOCK
    padded = centroids.new_zeros(width, centroids.shape[1])
    padded[:k] = centroids
    bias = centroids.new_zeros(width) if spherical else padded.square().sum(dim=1) / -2
    labels = torch.empty(len(points), dtype=torch.int64, device=points.device)
    scores = torch.empty(len(points), dtype=points.dtype, device=points.device)
    rows = max(1, SLICE // width)
    table = points.new_empty(min(rows, len(points)), width)
    for i in range(0, len(points), rows):
        part = points[i : i + rows]
        found = table[: len(part)]
        if spherical:
            torch.mm(part, padded.T, out=found)
        else:
            torch.addmm(bias, part, padded.T, out=found)
        torch.max(found[:, :k], dim=1, out=(scores[i : i + rows], labels[i : i + rows]))
    return labels, scores


def _update(points: Tensor, labels: Tensor, scores: Tensor, centroids: Tensor, spherical: bool) -> Tensor:
    """Means of the clusters, on the sphere or not; empty clusters are placed anew."""
    k = len(centroids)
    # On a GPU index_add_ would use atomics, whose order changes from run to run.
    sums, counts = _sums(points, labels, k, one_hot=points.device.type != "cpu")
    if spherical:
        lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        usable = lengths > 0  # opposite points may cancel: their centroid stays where it is
        means = sums / lengths.masked_fill(~usable, 1)
    else:
        usable = (counts > 0).unsqueeze(1)
        means = sums / counts.clamp(min=1).unsqueeze(1)
    result = torch.where(usable, means.to(points.dtype), centroids)
    empty = torch.nonzero(counts == 0).squeeze(1)
    if len(empty):
        distance = 2 - 2 * scores if spherical else points.square().sum(dim=1) - 2 * scores
        # A point at its centroid, or alone in its cluster, has nothing to gain.
        distance = distance.masked_fill(counts[labels] < 2, 0)
        farthest = torch.argsort(distance, descending=True, stable=True)[: len(empty)]
        farthest = farthest[distance[farthest] > 8 * torch.finfo(points.dtype).eps]
        result[empty[: len(farthest)]] = points[farthest]
    return result


def _sums(points: Tensor, labels: Tensor, k: int, *, one_hot: bool) -> tuple[Tensor, Tensor]:
    """Sum (k, D) float64 and number (k,) of the points of each cluster, by a product or by plain additions."""
    total = torch.zeros(k, points.shape[1], dtype=torch.float64, device=points.device)
    rows = max(1, SLICE // max(k, BLOCK))
    for i in range(0, len(points), rows):
        part, own = points[i : i + rows], labels[i : i + rows]
        if one_hot:
            members = own.unsqueeze(0) == torch.arange(k, device=own.device).unsqueeze(1)
            total += members.to(points.dtype) @ part
        else:
            total += points.new_zeros(k, points.shape[1]).index_add_(0, own, part)
    return total, torch.bincount(labels, minlength=k)
