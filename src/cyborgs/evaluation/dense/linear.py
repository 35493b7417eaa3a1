"""Linear probe for segmentation: one 1x1 convolution on frozen maps, from photos with a class per pixel.

By default not a published protocol: small, and the same for every backbone. Each layer's channels are whitened with the
train photos' statistics, since on features as correlated as a random network's plain training takes hundreds of epochs
to converge, and the probe would measure that instead. Other settings leave the channels as they are and train by SGD.

Layers of a probe are brought bilinearly to a common grid of one cell per 8 pixels; since a 1x1 convolution and bilinear
interpolation commute, each layer's logits are interpolated instead of its features. Trained on the majority class of
each cell, judged at full resolution on bilinearly enlarged logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.evaluation.sets.pixel_sets import LabelledPhotos
from cyborgs.features.extraction import Photos, Progress, UInt8, resize
from cyborgs.features.frozen_maps import FrozenMaps, Whitening, frozen_maps
from cyborgs.metrics.segmentation import class_scores, confusion
from cyborgs.seeds import numpy_generator

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

MOMENTUM: Final = 0.9
"""Of SGD."""
_VOID = -1  # cells without a class; a set's own void label may be any


@dataclass(frozen=True)
class ProbeSettings:
    """How the probe is trained. The rate falls by half a cosine to 0."""

    epochs: int = 10
    """Passes over the train photos."""
    min_steps: int = 300
    """Steps at least: more epochs where the photos are few."""
    batch: int = 8
    """Photos in a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """SGD has momentum 0.9."""
    lr: float = 30.0
    """Learning rate; AdamW's times the number of channels (64 at least): many move the logits no more than few."""
    channels: Literal["whiten", "keep"] = "whiten"
    """What is done with each layer's channels; on correlated ones AdamW does not converge unless they are whitened."""
    weight_decay: float = 1e-2
    """The optimiser's decay, of the weights."""
    short_side: int = 0
    """Longest allowed short side of a photo in pixels; 0: native size."""

    def __post_init__(self) -> None:
        if (
            min(self.epochs, self.batch) < 1
            or self.lr <= 0
            or min(self.min_steps, self.weight_decay, self.short_side) < 0
        ):
            raise ValueError(f"a probe needs epochs, batch and lr above 0, and nothing negative, got {self}")


@dataclass(frozen=True)
class ProbeResult:
    """What a probe measured. Shares from 0 to 1."""

    layers: tuple[str, ...]
    seed: int
    miou: float
    """Mean over the classes that the val truth holds."""
    accuracy: float
    """Share of pixels that are right."""
    iou: tuple[float, ...]
    """Per class; NaN where the val truth lacks it."""
    train_loss: float
    """Mean cross-entropy of the last epoch's cells."""
    train_photos: int
    val_photos: int
    settings: ProbeSettings
    counts: tuple[NDArray[np.int64], ...] = field(default=(), repr=False, compare=False)
    """Of each val photo: pixels by (prediction, class), (classes, classes)."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the photos' counts; an absent class is None."""
        said = asdict(replace(self, counts=())) | {"iou": [None if math.isnan(x) else x for x in self.iou]}
        del said["counts"]
        return said


def cell_labels(labels: UInt8, grid: tuple[int, int], classes: int, ignore: int | None = None) -> NDArray[np.int64]:
    """Majority class of the pixels in each cell, int64 (h, w); -1 where all are void; ties to the lowest class.

    labels uint8 (H, W). Pixel y of H lies in cell floor(y h / H).
    """
    height, width = labels.shape
    rows, columns = (np.arange(n) * g // n for n, g in ((height, grid[0]), (width, grid[1])))
    cells = rows[:, None] * grid[1] + columns[None, :]
    kept = np.ones(labels.shape, bool) if ignore is None else labels != ignore
    votes = np.bincount(
        cells[kept] * classes + labels[kept].astype(np.int64), minlength=grid[0] * grid[1] * classes
    ).reshape(*grid, classes)
    return np.where(votes.sum(2) == 0, _VOID, votes.argmax(2)).astype(np.int64)


class Probe(torch.nn.Module):
    """The 1x1 convolution, one weight matrix (C, classes) per layer, on channels that ``whitening`` is applied to."""

    def __init__(self, layers: Sequence[str], whitening: Mapping[str, Whitening], classes: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.whitening = [whitening[name] for name in layers]
        # Zero: the problem is convex, so that no start is better, and none is random.
        self.weights = torch.nn.ParameterList(
            [torch.nn.Parameter(torch.zeros(len(w.mean), classes)) for w in self.whitening]
        )
        self.bias = torch.nn.Parameter(torch.zeros(classes))

    def folded(self) -> tuple[list[Tensor], Tensor]:
        """Weights (classes, C) for the maps as they are, and the bias (classes,): once a step, maps are many."""
        weights = [w.matrix @ p for w, p in zip(self.whitening, self.weights, strict=True)]
        bias = self.bias
        for w, p in zip(self.whitening, weights, strict=True):
            bias = bias - w.mean @ p
        return [p.T for p in weights], bias

    def logits(
        self, folded: tuple[Sequence[Tensor], Tensor], maps: Mapping[str, Tensor], grid: tuple[int, int]
    ) -> Tensor:
        """Logits (classes, *grid) of one photo's maps (C, h, w)."""
        weights, bias = folded
        total = bias[:, None, None]
        for name, weight in zip(self.layers, weights, strict=True):
            m = maps[name]
            shaped = (weight @ m.float().flatten(1)).reshape(1, -1, *m.shape[1:])
            total = total + resize(shaped, *grid)[0]
        return total


def _train(maps: FrozenMaps, cells: Sequence[Tensor], probe: Probe, settings: ProbeSettings, seed: int) -> float:
    """Train in place; the mean loss of the last epoch."""
    channels = sum(w.shape[0] for w in probe.weights)
    adam = settings.optimizer == "adamw"
    groups = [
        {"params": list(probe.weights), "lr": settings.lr / max(64, channels) if adam else settings.lr},
        {"params": [probe.bias], "lr": 0.01 if adam else settings.lr, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer = (
        torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        if adam
        else torch.optim.SGD(groups, momentum=MOMENTUM, weight_decay=settings.weight_decay)
    )
    an_epoch = -(-len(maps) // settings.batch)
    epochs = max(settings.epochs, -(-settings.min_steps // an_epoch))
    steps = epochs * an_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / steps)))
    mean_loss = math.nan
    for epoch in range(epochs):
        order = numpy_generator(seed, "evaluation", 10, epoch).permutation(len(maps))
        total, count = 0.0, 0
        for first in range(0, len(order), settings.batch):
            chosen = [int(i) for i in order[first : first + settings.batch]]
            folded = probe.folded()
            logits = torch.cat([probe.logits(folded, maps.maps[i], maps.grids[i]).flatten(1) for i in chosen], 1).T
            targets = torch.cat([cells[i] for i in chosen])
            known = int((targets != _VOID).sum())
            if known:
                loss = F.cross_entropy(logits, targets, ignore_index=_VOID)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, count = total + float(loss.detach()) * known, count + known
            schedule.step()
        mean_loss = total / count if count else math.nan
    return mean_loss


@torch.no_grad()
def _measure(maps: FrozenMaps, labelled: LabelledPhotos, probe: Probe) -> list[NDArray[np.int64]]:
    """Pixels of each photo by (prediction, class) at full resolution, int64 (classes, classes)."""
    counts = []
    folded = probe.folded()
    for i in range(len(maps)):
        truth = labelled.truth(i)
        logits = resize(probe.logits(folded, maps.maps[i], maps.grids[i])[None], *truth.shape)[0]
        counts.append(confusion(logits.argmax(0).numpy(), truth, labelled.classes, labelled.classes, labelled.ignore))
    return counts


def linear_segmentation(
    backbone: Backbone,
    train: LabelledPhotos,
    val: LabelledPhotos,
    *,
    layers: Sequence[str],
    seed: int = 0,
    settings: ProbeSettings | None = None,
    progress: Progress | None = None,
    maps: tuple[FrozenMaps, FrozenMaps] | None = None,
) -> ProbeResult:
    """Train a probe on the joined ``layers`` of all train photos, and measure it on the val photos.

    Args:
        backbone: frozen; eval mode.
        train: photos that the probe learns from.
        val: photos that it is measured on, with the same classes.
        layers: that are joined.
        seed: order of the photos in training.
        settings: how the probe is trained.
        progress: called with photos done and photos in all while maps are computed.
        maps: of the train and val photos, where they are there already.

    Raises:
        UserError: naming file and reason, where a photo and its label map do not fit each other or the classes.
    """
    settings = settings or ProbeSettings()
    if not layers:
        raise ValueError("layers: name at least one")
    if train.classes != val.classes:
        raise ValueError(f"train has {train.classes} classes, val {val.classes}: they must be the same")
    # Labels first: they are quick to read, and a wrong one should not show after minutes of features.
    shapes = [[part.truth(i).shape for i in range(len(part))] for part in (train, val)]
    train_maps, val_maps = maps or maps_of_both(backbone, train, val, layers, settings.short_side, progress)
    _same_sizes(train, train_maps, shapes[0])
    _same_sizes(val, val_maps, shapes[1])
    cells = [
        torch.from_numpy(cell_labels(train.truth(i), grid, train.classes, train.ignore).ravel())
        for i, grid in enumerate(train_maps.grids)
    ]
    whitening = {name: _whitening(train_maps, name, settings) for name in layers}
    probe = Probe(layers, whitening, train.classes)
    loss = _train(train_maps, cells, probe, settings, seed)
    counts = _measure(val_maps, val, probe)
    score = class_scores(np.sum(counts, axis=0))
    return ProbeResult(
        tuple(layers),
        seed,
        score.miou,
        score.accuracy,
        score.iou,
        loss,
        len(train),
        len(val),
        settings,
        tuple(counts),
    )


def maps_of_both(
    backbone: Backbone,
    train: Photos,
    val: Photos,
    layers: Sequence[str],
    short_side: int,
    progress: Progress | None = None,
) -> tuple[FrozenMaps, FrozenMaps]:
    """Maps of all train and val photos; ``progress`` counts both."""
    photos = len(train) + len(val)

    def counted(offset: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(offset + done, photos)

    return (
        frozen_maps(backbone, train, layers, short_side=short_side, progress=counted(0)),
        frozen_maps(backbone, val, layers, short_side=short_side, progress=counted(len(train))),
    )


def _whitening(maps: FrozenMaps, layer: str, settings: ProbeSettings) -> Whitening:
    if settings.channels == "whiten":
        return maps.whitening(layer)
    width = len(maps.maps[0][layer])
    return Whitening(torch.zeros(width), torch.eye(width))


def _same_sizes(labelled: LabelledPhotos, maps: FrozenMaps, truths: Sequence[tuple[int, ...]]) -> None:
    for i, (size, truth) in enumerate(zip(maps.sizes, truths, strict=True)):
        if size != truth:
            labelled.pair(i)  # says so
