"""A 1x1 convolution on frozen, whitened maps, from photos with a class per pixel (``evaluation/dense/linear.py``).

Not a published protocol: quick, and the same for every backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense.linear import ProbeSettings, linear_segmentation, maps_of_both
from cyborgs.evaluation.photos.pooled import class_names, counts_of
from cyborgs.evaluation.sets.pixel_sets import PixelData, open_for
from cyborgs.evaluation.settings.pixels import DenseProbeSettings
from cyborgs.features.frozen_maps import FrozenMaps
from cyborgs.features.neighbours import compared_layers
from cyborgs.metrics.judged import PixelCounts
from cyborgs.metrics.segmentation import miou_all_seen
from cyborgs.models.weights import weights_hash

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


open_data = open_for


def evaluate(backbone: Backbone, data: PixelData, settings: DenseProbeSettings, context: Context) -> Result:
    """mIoU and pixel accuracy at the photos' own resolution, and IoU by class.

    Raises:
        UserError: the network lacks a layer, or its maps hold NaN.
    """
    layers = settings.layers or compared_layers(backbone)
    backbone.check_layers(layers)
    chosen = data.chosen(context.share, context.seed)
    train = data.train.part(chosen)
    probe = ProbeSettings(epochs=settings.epochs, min_steps=settings.min_steps, short_side=settings.short_side)
    kept = _kept_maps(backbone, data, layers, settings.short_side, context)
    if kept is not None:
        kept = kept[0].part(chosen.tolist()), kept[1]
    found = linear_segmentation(
        backbone,
        train,
        data.test,
        layers=layers,
        seed=context.seed,
        settings=probe,
        progress=context.progress,
        maps=kept,
    )
    names = class_names(data.test.names, data.test.classes)
    return Result(
        "miou",
        {
            "miou": found.miou,
            "miou_all_seen": miou_all_seen(np.sum(found.counts, axis=0)),
            "accuracy": found.accuracy,
        },
        PixelCounts(found.counts),
        asdict(settings) | {"layers": list(layers), "probe": asdict(probe)},
        counts_of(data, len(train)),
        context.seed,
        dict(zip(names, found.iou, strict=True)),
        data.notes,
    )


def _kept_maps(
    backbone: Backbone, data: PixelData, layers: Sequence[str], short_side: int, context: Context
) -> tuple[FrozenMaps, FrozenMaps] | None:
    """Maps of all train and test photos, from memory where they are of this backbone; None: nothing is kept."""
    if context.memory is None:
        return None
    key = (weights_hash(backbone), data.fingerprint, tuple(layers), short_side)
    if context.memory.get("dense-probe key") != key:
        context.memory.pop("dense-probe maps", None)  # one backbone's at a time
        context.memory["dense-probe maps"] = maps_of_both(
            backbone, data.train, data.test, layers, short_side, context.progress
        )
        context.memory["dense-probe key"] = key
    found: tuple[FrozenMaps, FrozenMaps] = context.memory["dense-probe maps"]
    return found
