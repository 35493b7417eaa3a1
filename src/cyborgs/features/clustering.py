"""One spherical k-means over the cells of many photos: clusters that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.features.extraction import Progress, UInt8, join, layer_maps, stream_maps
from cyborgs.masks.bootstrap import cap_short_side
from cyborgs.ops.enlarge import Enlarged, of_cells
from cyborgs.ops.streaming_kmeans import SAMPLE_BYTES, StreamingKMeans
from cyborgs.seeds import derive

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


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

    def joined(self, backbone: Backbone, image: UInt8) -> Tensor:
        """What is clustered of a photo uint8 (H, W, 3): float32 (D, h, w) on the backbone's device."""
        maps = layer_maps(backbone, [cap_short_side(image, self.short_side)], self.layers)
        return join([maps[name][0] for name in self.layers])

    def of_cells(self, backbone: Backbone, image: UInt8) -> UInt8:
        """The nearest cluster of each cell of a photo, uint8 (h, w)."""
        return of_cells(self.centroids, self.joined(backbone, image))[0]

    def of_pixels(self, backbone: Backbone, image: UInt8) -> Enlarged:
        """Labels and cosines of each pixel of a photo, from the bilinearly enlarged features."""
        return Enlarged(self.centroids, self.joined(backbone, image), *image.shape[:2])


def cluster_cells(
    cells: Iterable[Tensor],
    clusters: Sequence[int],
    *,
    layers: Sequence[str],
    seed: int = 0,
    short_side: int = 0,
    sample_bytes: int = SAMPLE_BYTES,
    iterations: int = 50,
    restarts: int = 1,
    device: torch.device | str = "cpu",
) -> dict[int, Clusters]:
    """Clusters for each K, from one pass over ``cells``; memory as ``sample_bytes`` says (``ops/streaming_kmeans.py``).

    Args:
        cells: rows (n, D) of photo after photo; float32, on the CPU.
        clusters: the numbers of clusters, K.
        layers: where the rows come from.
        seed: of the sample and of the initial centroids.
        short_side: what the photos were brought to.
        sample_bytes: of the sample.
        iterations: of Lloyd's algorithm, at most.
        restarts: clusterings of which the one with the highest mean cosine is taken.
        device: where k-means runs.

    Raises:
        UserError: there are fewer cells than clusters, or none.
        NotFiniteError: NaN or infinity.
    """
    stream: StreamingKMeans | None = None
    for rows in cells:
        if stream is None:
            stream = StreamingKMeans(rows.shape[1], seed=derive(seed, "evaluation", 3), sample_bytes=sample_bytes)
        stream.feed(rows)
    if stream is None:
        raise UserError("there is no photo to cluster")
    most = max(clusters)
    if most > stream.seen:
        raise UserError(
            f"clusters: {most} were asked for, but the photos have {stream.seen} cells of {'+'.join(layers)} in all. "
            "Ask for fewer, give more or larger photos, or a layer of a finer grid."
        )
    if most > len(stream):
        raise UserError(f"clusters: {most} were asked for, but only {len(stream)} cells fit the sample's memory")
    starts = [derive(seed, "evaluation", 2, restart) for restart in range(restarts)]
    out = {}
    for k in clusters:
        found = [stream.centroids(k, iterations=iterations, device=device, start=start) for start in starts]
        centroids, cosine = max(found, key=lambda one: one[1])
        out[k] = Clusters(centroids, tuple(layers), short_side, len(stream), cosine)
    return out


def cluster_photos(
    backbone: Backbone,
    photos: Images,
    clusters: Sequence[int],
    *,
    layers: Sequence[str],
    seed: int = 0,
    short_side: int = 0,
    sample_bytes: int = SAMPLE_BYTES,
    restarts: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[int, Clusters]:
    """``cluster_cells`` of all cells of all photos, a uniform sample of which is kept.

    Args:
        backbone: whose maps are clustered; k-means runs on its device.
        photos: all of them.
        clusters: the numbers of clusters, K.
        layers: what is clustered, joined at the finest of their grids.
        seed: of the sample and of the initial centroids.
        short_side: longest allowed short side of what the network sees, in pixels; 0: native size.
        sample_bytes: of the sample.
        restarts: clusterings of which the one with the highest mean cosine is taken.
        threads: that decode; None: up to 4; 0: none.
        progress: called with photos done and in all.

    Raises:
        UserError: as ``cluster_cells``.
        NotFiniteError: a map holds NaN or infinity; names the photo.
    """

    def cells() -> Iterator[Tensor]:
        passed = stream_maps(backbone, photos, layers, short_side=short_side, threads=threads)
        for done, (_, _, joined) in enumerate(passed, 1):
            yield joined.flatten(1).T.cpu()
            if progress is not None:
                progress(done, len(photos))

    return cluster_cells(
        cells(),
        clusters,
        layers=layers,
        seed=seed,
        short_side=short_side,
        sample_bytes=sample_bytes,
        restarts=restarts,
        device=next(backbone.parameters()).device,
    )
