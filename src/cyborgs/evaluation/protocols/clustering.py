"""Clusters of frozen features as an unsupervised segmentation (PiCIE's COCO-Stuff, 27 classes; any folder).

One spherical k-means over the training photos' cells, of unit length. A test photo's cosines with the centroids are
taken cell by cell and enlarged bilinearly; a pixel takes the cluster with the largest. As many clusters as classes, or fewer: matched one to one on the test photos, such that most
pixels are right. More: each cluster takes the class that most of its training pixels have.

Beside it a linear probe on the same cells of unit length: a 1x1 convolution, cross-entropy, SGD 0.1 by half a cosine to 0,
``linear_epochs`` passes and no more, so that on few photos it stays far from converged. PiCIE says no more than that a
linear layer is trained: the rate, momentum 0.9, no decay, 8 photos a step, and one target a cell of 8 pixels, the
majority of its pixels, are ours (``evaluation/dense/linear.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from cyborgs.data.palette import nearest
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense.linear import ProbeSettings, linear_segmentation
from cyborgs.evaluation.photos.pooled import class_names, collapsed, counts_of
from cyborgs.evaluation.sets.pixel_sets import LabelledPhotos, PixelData, PixelSet, open_for
from cyborgs.evaluation.settings.pixels import ClusteringSettings
from cyborgs.features.clustering import cluster_cells, sample_cells
from cyborgs.features.extraction import JOINED, UInt8, frozen_maps, iterate_maps, join
from cyborgs.features.transforms import centre, middle
from cyborgs.metrics.segmentation import (
    MajorityScore,
    SegmentationScore,
    confusion,
    hungarian_scores,
    majority_scores,
    miou_all_seen,
)
from cyborgs.ops.enlarge import Enlarged
from cyborgs.seeds import numpy_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

Counts = NDArray[np.int64]
POINTS: Final = 200_000
"""Cells that are clustered at most."""
POINT_BYTES: Final = 1 << 30
"""And their size."""
KEPT: Final = 1 << 29
"""Bytes of the training photos' maps that are kept, so as not to compute them twice."""
LINEAR_ROOM: Final = 4 << 30
"""Bytes of maps on which the linear probe is trained at most."""
RESTARTS: Final = 5
"""Clusterings of which the one with the highest mean cosine is taken."""
PROBE: Final = ProbeSettings(min_steps=0, optimizer="sgd", lr=0.1, channels="keep", weight_decay=0.0)
"""The linear probe's training."""
_DRAWN: Final = 55
"""Stream of ``numpy_generator(seed, "evaluation", ...)``."""


@dataclass(frozen=True)
class Cropped:
    """Photos and truths brought to a short side, of which the middle square is cut out."""

    photos: PixelSet
    side: int

    @property
    def classes(self) -> int:
        """Of the photos."""
        return self.photos.classes

    @property
    def ignore(self) -> int:
        """Of the photos."""
        return self.photos.ignore

    def __len__(self) -> int:
        return len(self.photos)

    def name(self, i: int) -> str:
        """File name of photo i."""
        return self.photos.name(i)

    def read(self, i: int) -> UInt8:
        """uint8 (side, side, 3)."""
        return middle(self.photos.read(i), self.side, self.side)

    def truth(self, i: int) -> UInt8:
        """uint8 (side, side), by nearest neighbour."""
        labels = self.photos.truth(i)
        height, width = (max(self.side, round(n * self.side / min(labels.shape))) for n in labels.shape)
        return np.ascontiguousarray(centre(nearest(labels, height, width), self.side, self.side))

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        """Both."""
        return self.read(i), self.truth(i)


@dataclass(frozen=True)
class ClusterCounts:
    """Pixels by (cluster, class) of each test photo: mIoU after the matching, made anew for each draw of the photos."""

    rows: sparse.csr_matrix
    """(photos, clusters x classes)."""
    shape: tuple[int, int]
    chosen_on: Counts | None
    """Of the training photos, where there are more clusters than classes."""

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def scores(self, weights: NDArray[np.int64]) -> SegmentationScore | MajorityScore:
        """All scores of a draw."""
        counts: Counts = np.asarray(self.rows.T @ weights).reshape(self.shape)
        return hungarian_scores(counts) if self.chosen_on is None else majority_scores(counts, self.chosen_on)

    def score(self, weights: NDArray[np.int64]) -> float:
        """mIoU."""
        return self.scores(weights).miou


def open_data(data: str, settings: ClusteringSettings, seed: int, data_set: str = "") -> PixelData:
    """Photos and label maps."""
    return open_for(data, settings, seed, data_set)


def evaluate(backbone: Backbone, data: PixelData, settings: ClusteringSettings, context: Context) -> Result:
    """mIoU and pixel accuracy for each number of clusters, the first the main figure, and of the linear probe.

    Raises:
        UserError: the network lacks a layer, its maps hold NaN, or there are fewer cells than clusters.
    """
    layers = settings.layers or (backbone.layers[-1],)
    backbone.check_layers(layers)
    part = data.share(context.share, context.seed)
    train: LabelledPhotos = Cropped(part, settings.side) if settings.crop else part
    test: LabelledPhotos = Cropped(data.test, settings.side) if settings.crop else data.test
    short = 0 if settings.crop else settings.side
    ks = settings.clusters or (data.train.classes,)
    kept: dict[int, Tensor] = {}
    cells = _cells(backbone, train, layers, short, context, kept)
    if len(cells) < max(ks):
        raise UserError(f"clusters: {max(ks)} are wanted of {len(cells)} cells. Give more photos, or ask for fewer.")
    told = [*data.notes, *collapsed(cells[:10_000])]
    x = cells.to(next(backbone.parameters()).device)
    centroids = {k: cluster_cells(x, k, seed=context.seed, restarts=RESTARTS)[0] for k in ks}
    del cells, x
    context.say(f"{', '.join(map(str, ks))} clusters found; judging {len(test)} photos")
    judged = _judged(backbone, train, test, layers, short, centroids, kept)
    kept.clear()
    everything = np.ones(len(test), np.int64)
    figures: dict[str, float] = {}
    for k in ks:
        score = judged[k].scores(everything)
        if k == ks[0]:
            main = score
            figures |= {"miou": score.miou, "accuracy": score.accuracy}
        figures |= {f"miou_k{k}": score.miou, f"accuracy_k{k}": score.accuracy}
    said: dict[str, Any] = {
        "clusters": list(ks),
        "layers": list(layers),
        "matching": {str(k): "one to one" if judged[k].chosen_on is None else "majority of training" for k in ks},
    }
    if settings.linear:
        probe = replace(PROBE, epochs=settings.linear_epochs, short_side=short)
        learned, left = _linear_part(backbone, part, train, layers, settings, context.seed)
        if left:
            told.append(f"the linear probe learns from {len(learned)} of {len(part)} training photos, as many as fit.")
        maps = [frozen_maps(backbone, photos, layers, short_side=short, unit=True) for photos in (learned, test)]
        (found,) = linear_segmentation(
            backbone, learned, test, layers=[[JOINED]], seeds=(context.seed,), settings=probe, maps=(maps[0], maps[1])
        )
        figures |= {
            "linear_miou": found.miou,
            "linear_miou_all_seen": miou_all_seen(np.sum(found.counts, axis=0)),
            "linear_accuracy": found.accuracy,
        }
        said["probe"] = asdict(probe)
    return Result(
        "miou",
        figures,
        judged[ks[0]],
        asdict(settings) | said,
        counts_of(data, len(part)),
        context.seed,
        dict(zip(class_names(data.test.names, data.test.classes), main.iou, strict=True)),
        tuple(told),
    )


def _cells(
    backbone: Backbone,
    train: LabelledPhotos,
    layers: Sequence[str],
    short: int,
    context: Context,
    kept: dict[int, Tensor],
) -> Tensor:
    """Cells to cluster; ``kept`` gets the maps of the photos that come first, as far as there is room."""
    room = KEPT

    def keep(i: int, joined: Tensor) -> None:
        nonlocal room
        room -= joined.numel() * joined.element_size()
        if room >= 0:
            kept[i] = joined

    width = sum(backbone.widths[name] for name in layers)
    return sample_cells(
        backbone,
        train,
        layers=layers,
        seed=context.seed,
        short_side=short,
        max_points=min(POINTS, POINT_BYTES // (4 * width)),
        progress=context.progress,
        keep=keep,
    )


def _judged(
    backbone: Backbone,
    train: LabelledPhotos,
    test: LabelledPhotos,
    layers: Sequence[str],
    short: int,
    centroids: Mapping[int, Tensor],
    kept: Mapping[int, Tensor],
) -> dict[int, ClusterCounts]:
    """Counts of each number of clusters: of the test photos, and of the training photos where they choose the classes."""
    classes = test.classes
    many = {k: found for k, found in centroids.items() if k > classes}
    chosen_on = {k: np.zeros((k, classes), np.int64) for k in many}
    rest = [i for i in range(len(train)) if i not in kept]
    if many:
        for i, joined in kept.items():
            for k, counts in _count(train, i, joined, many).items():
                chosen_on[k] += counts
        for i, _, maps in iterate_maps(backbone, train, layers, indices=rest, short_side=short):
            for k, counts in _count(train, i, join([maps[name] for name in layers]), many).items():
                chosen_on[k] += counts
    rows: dict[int, dict[int, Any]] = {k: {} for k in centroids}
    for i, _, maps in iterate_maps(backbone, test, layers, short_side=short):
        for k, counts in _count(test, i, join([maps[name] for name in layers]), centroids).items():
            rows[k][i] = sparse.csr_matrix(counts.reshape(1, -1))
    return {
        k: ClusterCounts(sparse.vstack([found[i] for i in range(len(test))]).tocsr(), (k, classes), chosen_on.get(k))
        for k, found in rows.items()
    }


def _count(photos: LabelledPhotos, i: int, joined: Tensor, centroids: Mapping[int, Tensor]) -> dict[int, Counts]:
    """Pixels of a photo by (cluster, class), for each number of clusters."""
    truth = photos.truth(i)
    # Of unit length before they are enlarged: else a pixel between two cells follows the one with the longer feature.
    unit = F.normalize(joined, dim=0)
    return {
        k: confusion(Enlarged(found, unit, *truth.shape).labels()[0], truth, k, photos.classes, photos.ignore)
        for k, found in centroids.items()
    }


def _linear_part(
    backbone: Backbone,
    part: PixelSet,
    train: LabelledPhotos,
    layers: Sequence[str],
    settings: ClusteringSettings,
    seed: int,
) -> tuple[LabelledPhotos, bool]:
    """The training photos whose maps there is room for, drawn from the seed, and whether some were left."""
    (_, _, maps), *_ = iterate_maps(
        backbone, train, layers, indices=[0], short_side=0 if settings.crop else settings.side
    )
    most = max(1, LINEAR_ROOM // (2 * join([maps[name] for name in layers]).numel()))
    if len(part) <= most:
        return train, False
    order = numpy_generator(seed, "evaluation", _DRAWN).permutation(len(part))
    fewer = part.part(np.sort(order[:most]).tolist())
    return (Cropped(fewer, settings.side) if settings.crop else fewer), True
