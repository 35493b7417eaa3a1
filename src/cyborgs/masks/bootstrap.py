"""Masks from the network itself (Section 3.3): the pixels of a group of images, clustered by their features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, final

import cv2
import numpy as np
import torch
from torch import Tensor

from cyborgs.masks.config import CrfConfig
from cyborgs.masks.crf import refine, require_crf
from cyborgs.masks.majority import majority
from cyborgs.masks.source import SourceDefaults
from cyborgs.ops.enlarge import Enlarged
from cyborgs.ops.kmeans import spherical_kmeans
from cyborgs.ops.normalise import unit_rows
from cyborgs.seeds import derive, numpy_generator
from cyborgs.structures import MAX_LABELS, LabelMap

CALL_PIXELS: Final = {"cpu": 640 * 480, "cuda": 16 * 640 * 480}
"""Pixels that go through the network at once (a larger image goes alone), by kind of device.

On a CPU one image at a time is 1.5 times as fast as four (measured: ResNet-50 to layer2, one thread), for its
activations are memory that the allocator uses again. Constant, because another batch size may change the last bits.
"""


def draw_groups(seed: int, cycle: int, count: int, size: int) -> list[np.ndarray]:
    """Indices 0..count-1 in a random order of the cycle's own, cut in groups of ``size``, int64 each."""
    order = numpy_generator(seed, "groups", cycle).permutation(count).astype(np.int64)
    return [order[start : start + size] for start in range(0, count, size)]


def draw_group_clusters(seed: int, cycle: int, group: int, low: int, high: int) -> int:
    """K ~ U{low..high} of a group of bootstrapping."""
    return int(numpy_generator(seed, "group", cycle, group).integers(low, high, endpoint=True))


def cap_short_side(image: np.ndarray, short_side: int) -> np.ndarray:
    """Shrink uint8 (H, W, 3) so that its short side is ``short_side`` pixels, aspect kept; never enlarge. 0: as is."""
    height, width = image.shape[:2]
    short = min(height, width)
    if short_side == 0 or short <= short_side:
        return image
    size = (round(width * short_side / short), round(height * short_side / short))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def place(height: int, width: int, weight: float) -> Tensor:
    """Where the cells of a map lie, as vectors of equal length: float32 (height * width, 4), each of norm ``weight``.

    ``weight / sqrt 2 * (cos pi y, sin pi y, cos pi x, sin pi x)`` with y and x the cell's centre as a fraction of the
    image. Two places' squared distance is ``weight^2 (2 - cos(pi dy) - cos(pi dx))``, so spherical k-means sees them as
    k-means would: a small weight splits what lies far apart, a large one leaves blocks as of a grid.
    """
    y = (torch.arange(height, dtype=torch.float64) + 0.5) * (math.pi / height)
    x = (torch.arange(width, dtype=torch.float64) + 0.5) * (math.pi / width)
    rows = torch.stack([y.cos(), y.sin()], 1)[:, None].expand(height, width, 2)
    columns = torch.stack([x.cos(), x.sin()], 1)[None].expand(height, width, 2)
    both = torch.cat([rows, columns], 2).flatten(0, 1)
    return (both * (weight / math.sqrt(2))).to(torch.float32)


@final
class Bootstrap(SourceDefaults):
    """Spherical k-means over all pixels of a group's feature maps; K is drawn anew for each group.

    A label means something inside its group alone.
    """

    name: Final = "bootstrap"
    void: Final = None
    needs_images: Final = True

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        *,
        clusters: tuple[int, int] = (2, MAX_LABELS),
        group_size: int = 16,
        short_side: int = 0,
        iterations: int = 20,
        position: float = 0.0,
        crf: CrfConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Build the source.

        Args:
            features: uint8 (b, 3, H, W) RGB, channels last, on ``device`` -> floats (b, D, h, w): the clustered layer. The caller
                sees to eval mode and to normalising the pixels.
            clusters: lowest and highest K, within 1..256.
            group_size: images that are clustered together.
            short_side: longest allowed short side of an image in pixels, 0 for native size.
            iterations: of the k-means.
            position: weight of a pixel's place beside its features of unit length (ours); 0: features alone.
            crf: refine each map at the image's (capped) size, then store the majority label of each cell.
            device: where features and clusters are computed.

        Raises:
            UserError: a CRF is asked for, and its extra is missing.
        """
        low, high = clusters
        if not 1 <= low <= high <= MAX_LABELS:
            raise ValueError(f"clusters: need 1 <= low <= high <= {MAX_LABELS}, got {low} and {high}")
        if group_size < 1:
            raise ValueError(f"group_size: need at least 1, got {group_size}")
        if short_side < 0 or iterations < 1 or position < 0:
            raise ValueError(
                f"need short_side, position >= 0 and iterations >= 1, got {short_side}, {position} and {iterations}"
            )
        self.features = features
        self.clusters = (low, high)
        self.group_size = group_size
        self.short_side = short_side
        self.iterations = iterations
        self.position = position
        self.crf = crf if crf is not None and crf.enabled else None
        if self.crf is not None:
            require_crf()
        self.device = torch.device(device)

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """A random order of all images, other in each cycle, cut in groups; the last may be smaller."""
        return draw_groups(seed, cycle, count, self.group_size)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image with its short side capped."""
        return cap_short_side(image, self.short_side)

    @torch.no_grad()
    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        """Cluster one group; each map has the size of its image's feature map, labels 0..K-1.

        Images of different sizes share the clusters. K is at most the number of pixels of all maps together.
        """
        if not images:
            return []
        prepared = [self.prepare(image) for image in images]
        parts, sizes = self._feature_maps(prepared)
        counts = [h * w for h, w in sizes]
        rows = _move_together(parts, counts)
        k = min(draw_group_clusters(seed, cycle, group, *self.clusters), len(rows))
        # The last coordinate sets the initial centroids apart from the draw of K.
        start = derive(seed, "group", cycle, group, 1)
        labels, centroids = spherical_kmeans(rows, k, iterations=self.iterations, seed=start)
        if self.crf is not None:
            maps = zip(prepared, torch.split(rows, counts), sizes, strict=True)
            return [self._refined(image, own, size, centroids) for image, own, size in maps]
        pieces = np.split(labels.to(torch.uint8).cpu().numpy(), np.cumsum(counts)[:-1])
        return [LabelMap(piece.reshape(size)) for piece, size in zip(pieces, sizes, strict=True)]

    def _refined(self, image: np.ndarray, rows: Tensor, size: tuple[int, int], centroids: Tensor) -> LabelMap:
        """The map of one image after the CRF: rows (h * w, D) of the clustered features, centroids (K, D)."""
        assert self.crf is not None
        # Unit length first, as the prototypes saw them; the enlarged ones are brought to unit length again.
        features = unit_rows(rows).T.reshape(-1, *size)
        pixels = Enlarged(centroids.to(features), features, *image.shape[:2])
        near, _ = pixels.labels()
        present = np.unique(near)
        refined = refine(image, pixels.cosines(present), self.crf)
        return LabelMap(majority(present.astype(np.uint8)[refined], *size))

    def _feature_maps(self, images: Sequence[np.ndarray]) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """Rows float32 (h * w, D) and size (h, w) of each image's map; images of equal size share a call."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(position)
        rows: dict[int, Tensor] = {}
        sizes: dict[int, tuple[int, int]] = {}
        limit = CALL_PIXELS.get(self.device.type, CALL_PIXELS["cuda"])
        for shape, positions in by_size.items():
            step = max(1, limit // (shape[0] * shape[1]))
            for first in range(0, len(positions), step):
                called = positions[first : first + step]
                batch = torch.from_numpy(np.stack([images[position] for position in called]))
                # Channels last as it is: convolutions are quicker so, and rows of the map are then no copy.
                maps = self.features(batch.permute(0, 3, 1, 2).to(self.device))
                if maps.ndim != 4 or len(maps) != len(called):
                    raise ValueError(f"features gave {tuple(maps.shape)} for {len(called)} images, not (b, D, h, w)")
                for position, one in zip(called, maps, strict=True):
                    rows[position] = self._rows(one)
                    sizes[position] = (one.shape[1], one.shape[2])
        everyone = range(len(images))
        return [rows[i] for i in everyone], [sizes[i] for i in everyone]

    def _rows(self, features: Tensor) -> Tensor:
        """(D, h, w) -> float32 (h * w, D), or (h * w, D + 4) of features of unit length and places."""
        rows = features.flatten(1).T.to(torch.float32).contiguous()
        if self.position == 0:
            return rows
        _, height, width = features.shape
        where = place(height, width, self.position).to(rows.device)
        return torch.cat([unit_rows(rows), where], 1)


def _move_together(parts: list[Tensor], counts: Sequence[int]) -> Tensor:
    """Concatenate (n_i, D) to (N, D), giving each part back once it is copied: features are not held twice.

    (Fresh pages of a large tensor are only taken from the system as they are written.)
    """
    whole = parts[0].new_empty(sum(counts), parts[0].shape[1])
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole
