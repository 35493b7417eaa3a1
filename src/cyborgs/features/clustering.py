"""One spherical k-means over the pixels of many photos, and its quality against truth (docs/method.md, "Measures of masks")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cyborgs.data.palette import nearest
from cyborgs.features.extraction import Photos, Progress, UInt8, iterate_maps, join, layer_maps
from cyborgs.masks.bootstrap import cap_short_side
from cyborgs.metrics.segmentation import SegmentationScore, confusion, hungarian_scores
from cyborgs.ops.enlarge import Enlarged
from cyborgs.ops.kmeans import spherical_kmeans
from cyborgs.seeds import derive, numpy_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

_KEPT = 512 * 2**20  # bytes of maps that cluster_miou keeps, so as not to compute them twice


@dataclass(frozen=True)
class Clusters:
    """Clusters that all photos share: one id space."""

    centroids: Tensor
    """float32 (K, D), unit length, on the CPU."""
    layers: tuple[str, ...]
    """Layers whose maps are clustered, brought to the finest of their grids."""
    short_side: int
    """Longest allowed short side of a photo in pixels; 0: native size."""
    points: int
    """Cells that were clustered."""
    cosine: float
    """Mean cosine of a cell and its centroid: what k-means maximises."""


def cluster_images(
    backbone: Backbone,
    photos: Photos,
    *,
    layers: Sequence[str],
    k: int,
    seed: int = 0,
    short_side: int = 0,
    max_points: int = 200_000,
    iterations: int = 20,
    restarts: int = 1,
    progress: Progress | None = None,
    keep: Callable[[int, Tensor], None] | None = None,
) -> Clusters:
    """Cluster the cells of all photos' maps, L2-normalised, into ``k`` (2 to 256).

    Above ``max_points`` cells each photo gives at most its equal share, drawn from (seed, photo); above ``max_points``
    photos, a draw of the photos gives one cell each. Of ``restarts`` clusterings the one with the highest mean cosine
    is kept. ``keep`` is given each photo's number and joined maps, float32 (D, h, w). The clustering runs on the backbone's device.
    """
    if not 2 <= k <= 256:
        raise ValueError(f"clusters: need 2 to 256 (a label map is 8-bit), got {k}")
    if max_points < k:
        raise ValueError(f"max_points: need at least as many points as clusters ({k}), got {max_points}")
    cells = sample_cells(
        backbone,
        photos,
        layers=layers,
        seed=seed,
        short_side=short_side,
        max_points=max_points,
        progress=progress,
        keep=keep,
    )
    x = cells.to(next(backbone.parameters()).device)
    centroids, cosine = cluster_cells(x, k, seed=seed, iterations=iterations, restarts=restarts)
    return Clusters(centroids, tuple(layers), short_side, len(x), cosine)


def sample_cells(
    backbone: Backbone,
    photos: Photos,
    *,
    layers: Sequence[str],
    seed: int = 0,
    short_side: int = 0,
    max_points: int = 200_000,
    progress: Progress | None = None,
    keep: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """What ``cluster_images`` clusters: unit rows float32 (N, D) on the CPU, N at most ``max_points``."""
    if len(photos) == 0:
        raise ValueError("there is no photo to cluster")
    chosen = np.arange(len(photos))
    if len(photos) > max_points:
        chosen = np.sort(numpy_generator(seed, "evaluation", 0).permutation(len(photos))[:max_points])
    share = max_points // len(chosen)
    rows: dict[int, Tensor] = {}
    indices = [int(i) for i in chosen]
    for i, _, maps in iterate_maps(backbone, photos, layers, indices=indices, short_side=short_side, progress=progress):
        joined = join([maps[name] for name in layers])
        if keep is not None:
            keep(i, joined)
        cells = joined.flatten(1).T
        if len(cells) > share:
            kept = np.sort(numpy_generator(seed, "evaluation", 1, i).permutation(len(cells))[:share])
            cells = cells[torch.from_numpy(kept)]
        rows[i] = cells.contiguous()
    return F.normalize(torch.cat([rows.pop(i) for i in indices]), dim=1)


def cluster_cells(x: Tensor, k: int, *, seed: int, iterations: int = 20, restarts: int = 1) -> tuple[Tensor, float]:
    """The best of ``restarts`` clusterings of unit rows (N, D): centroids float32 (K, D) on the CPU, mean cosine."""
    best, centroids = -2.0, x[:0]
    for restart in range(max(1, restarts)):
        start = derive(seed, "evaluation", 2, restart)
        labels, found = spherical_kmeans(x, k, iterations=iterations, seed=start)
        # In pieces, or the centroid of each cell would take as much memory as the cells.
        pieces = zip(torch.split(x, 65536), torch.split(labels, 65536), strict=True)
        cosine = sum(float((points * found[own]).sum(dtype=torch.float64)) for points, own in pieces) / len(x)
        if cosine > best:
            best, centroids = cosine, found
    return centroids.float().cpu(), best


def _similarities(clusters: Clusters, joined: Tensor) -> Tensor:
    """Inner products of maps (D, h, w) with the centroids, float32 (K, h, w)."""
    return torch.einsum("kd,dhw->khw", clusters.centroids.to(joined.device), joined)


def _labels(scores: Tensor) -> UInt8:
    labels: UInt8 = scores.argmax(0).to(torch.uint8).cpu().numpy()
    return labels


def assign(backbone: Backbone, clusters: Clusters, image: UInt8, *, full_resolution: bool = False) -> UInt8:
    """The nearest cluster of each cell, uint8 (h, w), or of each pixel, uint8 (H, W); image uint8 (H, W, 3).

    At full resolution a pixel takes the cluster nearest to the bilinearly enlarged features (``evaluation/enlarge.py``).
    """
    maps = layer_maps(backbone, [cap_short_side(image, clusters.short_side)], clusters.layers)
    joined = join([maps[name][0] for name in clusters.layers])
    if not full_resolution:
        return _labels(_similarities(clusters, joined))
    return Enlarged(clusters.centroids, joined, *image.shape[:2]).labels()[0]


def cluster_miou(
    backbone: Backbone,
    photos: Photos,
    truths: Callable[[int], UInt8],
    *,
    layers: Sequence[str],
    classes: int,
    k: int | None = None,
    void: int | None = None,
    seed: int = 0,
    short_side: int = 0,
    restarts: int = 5,
    progress: Progress | None = None,
) -> SegmentationScore:
    """Cluster all photos' cells once, match clusters to classes one to one, and score all pixels.

    Args:
        backbone: the network.
        photos: the scenes.
        truths: number of a photo -> its truth, uint8 (H, W).
        layers: what is clustered.
        classes: labels 0 to ``classes - 1`` are classes.
        k: clusters; as many as classes where not given.
        void: label of pixels that do not count.
        seed: of the clustering.
        short_side: as in ``cluster_images``.
        restarts: several, so that the figure tells features apart rather than lucky starts.
        progress: called with photos done and photos in all, of the clustering.
    """
    k = classes if k is None else k
    kept: dict[int, Tensor] = {}
    room = _KEPT

    def keep(i: int, joined: Tensor) -> None:
        nonlocal room
        room -= joined.numel() * joined.element_size()
        if room >= 0:
            kept[i] = joined

    clusters = cluster_images(
        backbone,
        photos,
        layers=layers,
        k=k,
        seed=seed,
        short_side=short_side,
        restarts=restarts,
        progress=progress,
        keep=keep,
    )
    counts = np.zeros((k, classes), np.int64)

    def count(i: int, joined: Tensor) -> None:
        truth = truths(i)
        labels = nearest(_labels(_similarities(clusters, joined)), *truth.shape)
        counts[:] += confusion(labels, truth, k, classes, void)

    for i, joined in kept.items():
        count(i, joined)
    rest = [i for i in range(len(photos)) if i not in kept]
    for i, _, maps in iterate_maps(backbone, photos, layers, indices=rest, short_side=short_side):
        count(i, join([maps[name] for name in layers]))
    return hungarian_scores(counts)


def map_miou(
    maps: Callable[[int], UInt8], truths: Callable[[int], UInt8], count: int, *, classes: int, void: int | None = None
) -> SegmentationScore:
    """The same score for ready maps whose labels mean the same in all photos, such as a fixed grid's cells."""
    counts = np.zeros((256, classes), np.int64)
    for i in range(count):
        truth = truths(i)
        counts += confusion(nearest(maps(i), *truth.shape), truth, 256, classes, void)
    return hungarian_scores(counts)
