"""Clusters of the slices of a batch for loss 2: how many, and their prototypes. Nothing waits for a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.ops.batched_kmeans import batched_kmeans
from cyborgs.seeds import derive, numpy_generator

POINTS_PER_CLUSTER = 4
"""K of loss 2 is never more than a quarter of the points that are clustered."""


class SliceClusters(NamedTuple):
    """The clusters of one slice of b images, of each view; without gradient."""

    images: slice
    """Where the slice lies in the batch."""
    k: int
    """Clusters of either view."""
    assignments: tuple[Tensor, Tensor]
    """int64 (b, h, w) of each view."""
    prototypes: tuple[Tensor, Tensor]
    """(k, D) of each view."""


def draw_slice_clusters(
    config: CyborgsConfig, fixed: int | None, points: int, seed: int, coordinates: tuple[int, ...]
) -> int:
    """K of a slice of so many points: ``fixed``, or drawn by (epoch, step, slice)."""
    low, high = config.clusters
    k = fixed or int(numpy_generator(seed, "slice", *coordinates).integers(low, high + 1))
    return max(1, min(k, points // POINTS_PER_CLUSTER))


def cluster_slices(
    config: CyborgsConfig,
    maps: Sequence[Tensor],
    fixed: int | None,
    seed: int,
    epoch: int,
    step: int,
    first: int,
) -> list[SliceClusters]:
    """Clusters each slice of both views' maps (B, D, h, w); the first image is number ``first`` of the global batch.

    ``fixed``: K, or None, and each slice draws its own. All slices of both views are one batch of problems; with
    ``linked_start`` those of the second view start from the first one's centroids, and are a second one. A last
    slice of fewer images is clustered by itself.
    """
    size, total = config.slice_size, len(maps[0])
    whole = total - total % size
    found: list[SliceClusters] = []
    for start, stop, images in ((0, whole, size), (whole, total, total - whole)):
        if start == stop:
            continue
        _, channels, h, w = maps[0].shape
        count, points = (stop - start) // images, images * h * w
        coordinates = [(epoch, step, (first + start) // size + i) for i in range(count)]
        k = [draw_slice_clusters(config, fixed, points, seed, c) for c in coordinates]
        seeds = [[derive(seed, "slice", *c, 1 + view) for c in coordinates] for view in (0, 1)]
        rows = torch.cat([y[start:stop].permute(0, 2, 3, 1) for y in maps]).reshape(2 * count, points, channels).float()
        runs: list[tuple[Tensor, Tensor]] = []
        if config.linked_start:
            for x, drawn in zip((rows[:count], rows[count:]), seeds, strict=True):
                runs.append(_cluster(config, x, k, drawn, runs[0][1] if runs else None))
        else:
            labels, centroids = _cluster(config, rows, k + k, seeds[0] + seeds[1])
            runs = [(labels[:count], centroids[:count]), (labels[count:], centroids[count:])]
        (labels1, centroids1), (labels2, centroids2) = runs
        for i, own in enumerate(k):
            begin = start + i * images
            assignments = labels1[i].view(images, h, w), labels2[i].view(images, h, w)
            prototypes = centroids1[i, :own], centroids2[i, :own]
            found.append(SliceClusters(slice(begin, begin + images), own, assignments, prototypes))
    return found


def _cluster(
    config: CyborgsConfig, x: Tensor, k: list[int], seeds: list[int], start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    spherical = config.distance == "vmf"
    return batched_kmeans(x, k, seeds, iterations=config.kmeans_iterations, start=start, spherical=spherical)
