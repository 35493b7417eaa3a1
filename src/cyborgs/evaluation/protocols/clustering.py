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
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from cyborgs.data.palette import nearest
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense.linear import ProbeSettings, linear_segmentation
from cyborgs.evaluation.photos.pooled import class_names, collapsed, counts_of
from cyborgs.evaluation.sets.pixel_sets import LabelledPhotos, PixelData, PixelSet, open_for
from cyborgs.evaluation.settings.pixels import ClusteringSettings
from cyborgs.features.clustering import cluster_cells
from cyborgs.features.extraction import UInt8, iterate_maps, join
from cyborgs.features.frozen_maps import JOINED, frozen_maps
from cyborgs.features.transforms import centre, middle
from cyborgs.metrics.judged import PixelCounts
from cyborgs.metrics.segmentation import confusion, hungarian_scores, majority_scores, miou_all_seen
from cyborgs.ops.enlarge import Enlarged
from cyborgs.seeds import numpy_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

Counts = NDArray[np.int64]
POINTS: Final = 200_000
"""Cells that are clustered at most."""
POINT_BYTES: Final = 1 << 30
"""And their size."""
LINEAR_ROOM: Final = 4 << 30
"""Bytes of maps on which the linear probe is trained at most."""
ITERATIONS: Final = 20
"""Of Lloyd's algorithm, at most."""
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
    cells = _cells(backbone, train, layers, short, context)
    told = [*data.notes, *collapsed(torch.cat(cells)[:10_000])]
    clusters = cluster_cells(
        cells,
        ks,
        layers=layers,
        seed=context.seed,
        sample_bytes=POINT_BYTES,
        iterations=ITERATIONS,
        restarts=RESTARTS,
        device=next(backbone.parameters()).device,
    )
    del cells
    centroids = {k: found.centroids for k, found in clusters.items()}
    context.say(f"{', '.join(map(str, ks))} clusters found; judging {len(test)} photos")
    judged = _judged(backbone, train, test, layers, short, centroids)
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
        "matching": {str(k): "majority of training" if k > data.test.classes else "one to one" for k in ks},
    }
    if settings.linear:
        probe = replace(PROBE, epochs=settings.linear_epochs, short_side=short)
        learned, left = _linear_part(backbone, part, train, layers, settings, context.seed)
        if left:
            told.append(f"the linear probe learns from {len(learned)} of {len(part)} training photos, as many as fit.")
        maps = [frozen_maps(backbone, photos, layers, short_side=short, unit=True) for photos in (learned, test)]
        found = linear_segmentation(
            backbone, learned, test, layers=[JOINED], seed=context.seed, settings=probe, maps=(maps[0], maps[1])
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
    backbone: Backbone, train: LabelledPhotos, layers: Sequence[str], short: int, context: Context
) -> list[Tensor]:
    """Unit rows (n, D) of each photo, in order: an equal share of ``POINTS``, drawn from (seed, photo).

    Above ``POINTS`` photos, a draw of the photos gives one cell each.
    """
    most = min(POINTS, POINT_BYTES // (4 * sum(backbone.widths[name] for name in layers)))
    chosen = np.arange(len(train))
    if len(train) > most:
        chosen = np.sort(numpy_generator(context.seed, "evaluation", 0).permutation(len(train))[:most])
    share = most // len(chosen)
    indices = chosen.tolist()
    rows: dict[int, Tensor] = {}
    for i, _, maps in iterate_maps(
        backbone, train, layers, indices=indices, short_side=short, progress=context.progress
    ):
        cells = join([maps[name] for name in layers]).flatten(1).T
        if len(cells) > share:
            kept = np.sort(numpy_generator(context.seed, "evaluation", 1, i).permutation(len(cells))[:share])
            cells = cells[torch.from_numpy(kept)]
        rows[i] = F.normalize(cells, dim=1)
    return [rows[i] for i in indices]


def _judged(
    backbone: Backbone,
    train: LabelledPhotos,
    test: LabelledPhotos,
    layers: Sequence[str],
    short: int,
    centroids: Mapping[int, Tensor],
) -> dict[int, PixelCounts]:
    """Counts of each number of clusters: of the test photos, and of the training photos where they choose the classes."""
    classes = test.classes
    many = {k: found for k, found in centroids.items() if k > classes}
    chosen_on = {k: np.zeros((k, classes), np.int64) for k in many}
    if many:
        for i, _, maps in iterate_maps(backbone, train, layers, short_side=short):
            for k, counts in _count(train, i, join([maps[name] for name in layers]), many).items():
                chosen_on[k] += counts
    rows: dict[int, dict[int, Any]] = {k: {} for k in centroids}
    for i, _, maps in iterate_maps(backbone, test, layers, short_side=short):
        for k, counts in _count(test, i, join([maps[name] for name in layers]), centroids).items():
            rows[k][i] = sparse.csr_matrix(counts)
    return {
        k: PixelCounts(
            [found[i] for i in range(len(test))],
            partial(majority_scores, chosen_on=chosen_on[k]) if k in many else hungarian_scores,
        )
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
