"""Training and judgement, the same for the fine-tuned network and for the probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense.augment import Crops
from cyborgs.evaluation.dense.inference import Inference, confusions
from cyborgs.evaluation.dense.network import Fcn, FrozenProbe
from cyborgs.evaluation.photos.pooled import class_names
from cyborgs.evaluation.sets.pixel_sets import PixelData, PixelSet
from cyborgs.evaluation.settings.pixels import SegmentationSettings
from cyborgs.evaluation.training.finetune import fine_tune
from cyborgs.metrics.judged import PixelCounts
from cyborgs.metrics.segmentation import Counts, class_scores, miou_all_seen
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import weights_hash

SHOWN = 5
"""Classes that a warning names."""


def crops(train: PixelSet, settings: SegmentationSettings, backbone: Backbone) -> Crops:
    """The training samples; padding has the colour that normalisation makes 0."""
    red, green, blue = (min(255, max(0, round(255 * mean))) for mean in backbone.config.mean)
    return Crops(
        train,
        train.ignore,
        settings.crop,
        settings.resize,
        settings.scales,
        settings.max_class_share,
        settings.photometric,
        (red, green, blue),
    )


def inference(classes: int, ignore: int, settings: SegmentationSettings) -> Inference:
    """How test photos are judged."""
    slides = settings.inference == "slide"
    return Inference(
        classes,
        ignore,
        settings.test_resize,
        settings.crop if slides else 0,
        (settings.slide_stride or max(1, 2 * settings.crop // 3)) if slides else 0,
        settings.align_corners,
    )


def trained_and_judged(
    objective: Fcn | FrozenProbe,
    backbone: Backbone,
    data: PixelData,
    settings: SegmentationSettings,
    said: Mapping[str, Any],
    context: Context,
) -> Result:
    """Train the objective on the train photos, or a share of them, and judge it on the test photos.

    Args:
        objective: holds a copy of the backbone.
        backbone: as it was given.
        data: train and test photos.
        settings: crops, training, inference.
        said: all settings, for the result and for the training's identity.
        context: seed, share, device, folder.
    """
    train = data.share(context.share, context.seed)
    identity = {
        "weights": weights_hash(backbone),
        "data": data.fingerprint,
        "share": context.share,
        "settings": dict(said),
    }
    ended = fine_tune(
        objective,
        crops(train, settings, backbone),
        settings.training,
        context,
        names=objective.names,
        identity=identity,
    )
    context.say(f"trained for {ended.steps} steps: {', '.join(f'{k} {v:.3f}' for k, v in ended.losses.items())}")
    how = inference(data.test.classes, data.test.ignore, settings)
    counts: list[Counts] = []
    for one in confusions(objective.logits, data.test, how, torch.device(context.device), context.workers):
        counts.append(one)
        if context.progress is not None:
            context.progress(len(counts), len(data.test))
    return _result(counts, data, train, said, context)


def figures_of(total: Counts) -> dict[str, float]:
    """miou, miou_all_seen, mean_accuracy, pixel_accuracy of a confusion matrix (classes, classes).

    Means over classes that the truth holds; miou_all_seen over those that are predicted too.
    """
    scores = class_scores(total)
    of_truth = total.sum(0)
    present = of_truth > 0
    recalls = np.diag(total)[present] / of_truth[present]
    return {
        "miou": scores.miou,
        "miou_all_seen": miou_all_seen(total),
        "mean_accuracy": float(recalls.mean()) if present.any() else float("nan"),
        "pixel_accuracy": scores.accuracy,
    }


def _result(
    counts: list[Counts], data: PixelData, train: PixelSet, said: Mapping[str, Any], context: Context
) -> Result:
    judged = PixelCounts(counts)
    total = judged.total(np.ones(len(counts), np.int64))
    names = class_names(data.train.names, data.train.classes)
    warnings = list(data.notes)
    used = dict(data.counts)
    if len(train) < len(data.train):
        used |= {"train": len(train), "skipped: train, beyond the share": len(data.train) - len(train)}
        lacking = (total.sum(0) > 0) & ~np.logical_or.reduce(train.survey(data.train.classes))[: data.train.classes]
        if lacking.any():
            found = [names[c] for c in np.flatnonzero(lacking).tolist()]
            listed = f"{', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''}"
            warnings.append(f"{len(found)} classes of the test photos have no pixel in this share of train: {listed}")
    return Result(
        "miou",
        figures_of(total),
        judged,
        dict(said),
        used,
        context.seed,
        dict(zip(names, class_scores(total).iou, strict=True)),
        tuple(warnings),
    )
