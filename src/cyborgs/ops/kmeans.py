"""Lloyd's k-means in torch, on the device that holds the points: spherical, and Euclidean (Table 2f)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cyborgs.errors import NotFiniteError
from cyborgs.ops.bounds import Bounds, padded, products_of, slices
from cyborgs.ops.normalise import at_least_float32, no_autocast

CANCELLED = 1e-9
"""A sum of unit vectors shorter than this is rounding."""
MORE = 1024
"""Points that are searched at a time for distinct initial centroids, once the first k were not enough."""


def spherical_kmeans(
    x: Tensor, k: int, *, iterations: int = 20, seed: int = 0, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Maximise the mean of cos(x_i, c_label(i)): rows of ``x`` on the unit sphere, centroids on it too.

    ``x`` (N, D) floating, of any length per row -> labels (N,) int64, the assignment (largest cosine, ties to the
    lowest index) to the returned centroids (k, D) of unit length, float32 (float64 where ``x`` is). No gradient.
    ``start`` (k, D): initial centroids; otherwise rows of ``x`` drawn by ``seed``, equally on every device.
    Stops early when no label changes. A cluster that runs empty goes to the point farthest from its centroid.
    Zero rows get label 0 and are left out of means and draws. Where there are fewer distinct directions than k, the
    surplus centroids repeat them. Memory beyond ``x``: one copy of it and a slice of N x K of constant size
    (and, for many points on a CPU, a fifth of a copy: see ``ops/bounds.py``).
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
            raise NotFiniteError("k-means: x holds NaN or infinity")
        # Distances come from products, which lose digits far from the origin.
        total = sum(points[part].sum(dim=0, dtype=torch.float64) for part in slices(points, len(points), x.shape[1]))
        centre = torch.as_tensor(total / len(points)).to(points.dtype)
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
    steps = list(slices(x, len(x), x.shape[1]))
    wide = torch.empty(steps[0].stop, x.shape[1], dtype=torch.float64, device=x.device)
    for part in steps:
        # In float64, because squares of very small or large entries leave the range of float32.
        rows = wide[: part.stop - part.start].copy_(x[part])
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True, out=lengths[part])
        points[part] = rows.div_(length.clamp(min=torch.finfo(torch.float64).tiny))
    if not bool(torch.isfinite(lengths).all()):
        raise NotFiniteError("k-means: x holds NaN or infinity")
    zero = (lengths == 0).squeeze(1)
    if not bool(zero.any()):
        return points, None
    nonzero = torch.nonzero(~zero).squeeze(1)
    for part in slices(points, len(nonzero), x.shape[1]):  # in place: rows only move up, and a second copy is dear
        points[part] = points[nonzero[part]]
    return points[: len(nonzero)], nonzero


def _lloyd(
    points: Tensor, k: int, iterations: int, seed: int, start: Tensor | None, *, spherical: bool
) -> tuple[Tensor, Tensor]:
    """The loop of both variants, on points that are prepared."""
    if not len(points):  # nothing but zero rows: any unit vector will do
        axis = torch.zeros(k, points.shape[1], dtype=points.dtype, device=points.device)
        axis[:, 0] = 1
        return torch.zeros(0, dtype=torch.int64, device=points.device), axis
    centroids = points[_draw(points, k, seed)] if start is None else start
    bounds = Bounds.of(points, len(centroids))
    labels, scores = _assign(points, centroids, spherical)
    sums, counts = _sums(points, labels, len(centroids))
    for step in range(iterations):
        centroids = _update(points, labels, scores, sums, counts, centroids, spherical)
        before = labels
        if bounds is None or step == iterations - 1:
            labels, scores = _assign(points, centroids, spherical)
        else:
            labels, scores = _reassign(points, centroids, spherical, labels, bounds)
        moved = torch.nonzero(labels != before).squeeze(1)
        if not len(moved):
            if bounds is not None:  # a tie may have kept its label, and ties go to the lowest index
                labels, scores = _assign(points, centroids, spherical)
            break
        if points.device.type == "cpu" and 4 * len(moved) < len(points):
            part = points[moved]
            for side, own in ((1, labels[moved]), (-1, before[moved])):
                change, number = _sums(part, own, len(centroids))
                sums += side * change
                counts += side * number
        else:
            sums, counts = _sums(points, labels, len(centroids))
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
        position, size = position + size, max(k, MORE)
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


def _bias(centroids: Tensor, spherical: bool) -> Tensor | None:
    """What is added to x.c: nothing, or -|c|^2 / 2, after which the order is that of -|x - c|^2."""
    return None if spherical else centroids.square().sum(dim=1) / -2


def _assign(points: Tensor, centroids: Tensor, spherical: bool, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Best centroid of each point, or of ``rows`` of them, and its score x.c + bias."""
    k, table, bias = len(centroids), padded(centroids), _bias(centroids, spherical)
    count = len(points) if rows is None else len(rows)
    labels = torch.empty(count, dtype=torch.int64, device=points.device)
    scores = torch.empty(count, dtype=points.dtype, device=points.device)
    if not count:
        return labels, scores
    # Memory that is used again and again: fresh pages cost as much as the arithmetic.
    steps = list(slices(points, count, max(points.shape[1], len(table))))
    products = points.new_empty(steps[0].stop, len(table))
    gathered = None if rows is None else points.new_empty(steps[0].stop, points.shape[1])
    for part in steps:
        size = part.stop - part.start
        if rows is None or gathered is None:
            some = points[part]
        else:
            some = torch.index_select(points, 0, rows[part], out=gathered[:size])
        found = products_of(some, table, bias, products[:size])
        torch.max(found[:, :k], dim=1, out=(scores[part], labels[part]))
    return labels, scores


def _reassign(
    points: Tensor, centroids: Tensor, spherical: bool, labels: Tensor, bounds: Bounds
) -> tuple[Tensor, Tensor]:
    """What ``_assign`` gives, but for ties, from the labels before: only points that may move are compared."""
    rows, scores = bounds.unsettled(points, centroids, _bias(centroids, spherical), labels)
    labels = labels.clone()
    labels[rows], scores[rows] = _assign(points, centroids, spherical, rows)
    return labels, scores


def _update(
    points: Tensor,
    labels: Tensor,
    scores: Tensor,
    sums: Tensor,
    counts: Tensor,
    centroids: Tensor,
    spherical: bool,
) -> Tensor:
    """Means of the clusters, on the sphere or not; empty clusters are placed anew."""
    if spherical:
        lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        usable = (lengths > CANCELLED) & (counts > 0).unsqueeze(
            1
        )  # opposite points cancel: their centroid stays where it is
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


def _sums(points: Tensor, labels: Tensor, k: int, *, one_hot: bool | None = None) -> tuple[Tensor, Tensor]:
    """Sum (k, D) float64 and number (k,) of the points of each cluster.

    ``one_hot``: by a product, as everywhere but on a CPU (None: that rule), because ``index_add_`` uses atomics on a
    GPU, whose order changes from run to run.
    """
    total = torch.zeros(k, points.shape[1], dtype=torch.float64, device=points.device)
    if points.device.type != "cpu" if one_hot is None else one_hot:
        for part in slices(points, len(points), k):
            members = labels[part].unsqueeze(0) == torch.arange(k, device=labels.device).unsqueeze(1)
            total += members.to(points.dtype) @ points[part]
    else:
        some = points.new_empty(k, points.shape[1])
        for part in slices(points, len(points), points.shape[1], 2**22):  # each costs a k x D in float64
            total += some.zero_().index_add_(0, labels[part], points[part])
    return total, torch.bincount(labels, minlength=k)
