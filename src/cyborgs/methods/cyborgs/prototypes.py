"""Clusters of one slice for loss 2: how many, and their prototypes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.ops import euclidean_kmeans, spherical_kmeans
from cyborgs.seeds import derive, numpy_generator

POINTS_PER_CLUSTER = 4
"""K of loss 2 is never more than a quarter of the points that are clustered."""


def draw_slice_clusters(
    config: CyborgsConfig, fixed: int | None, maps: Tensor, seed: int, coordinates: tuple[int, ...]
) -> int:
    """K of a slice whose maps are (b, D, h, w): ``fixed``, or drawn by (epoch, step, slice)."""
    points = maps.shape[0] * maps.shape[2] * maps.shape[3]
    low, high = config.clusters
    k = fixed or int(numpy_generator(seed, "slice", *coordinates).integers(low, high + 1))
    return max(1, min(k, points // POINTS_PER_CLUSTER))


def cluster_views(
    config: CyborgsConfig, maps: Sequence[Tensor], k: int, seed: int, coordinates: tuple[int, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Clusters each view of one slice: assignments (b, h, w) and prototypes (k, D), without gradient."""
    cluster = spherical_kmeans if config.distance == "vmf" else euclidean_kmeans
    assignments: list[Tensor] = []
    prototypes: list[Tensor] = []
    for view, y in enumerate(maps):
        points = y.permute(0, 2, 3, 1).flatten(0, 2).float()
        start = prototypes[0] if view and config.linked_start else None
        labels, centroids = cluster(
            points,
            k,
            iterations=config.kmeans_iterations,
            seed=derive(seed, "slice", *coordinates, 1 + view),
            start=start,
        )
        assignments.append(labels.view(y.shape[0], y.shape[2], y.shape[3]))
        prototypes.append(centroids)
    return assignments, prototypes
