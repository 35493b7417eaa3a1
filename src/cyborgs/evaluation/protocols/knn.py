"""Nearest neighbours on class folders: the weighted vote of the training photos, by cosine of frozen features.

Beside it what needs no label: how far a photo lies from a crop of itself (alignment), how evenly photos spread over the
sphere (uniformity), and how many dimensions they use (effective rank).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.features import features_of
from cyborgs.evaluation.photos.label_free import label_free
from cyborgs.evaluation.photos.pooled import all_vote, class_shares, collapsed, counts_of, unknown_classes
from cyborgs.evaluation.photos.voting import nearest_rows, votes
from cyborgs.evaluation.sets.classified import ClassifiedData, open_folders
from cyborgs.evaluation.settings.photos import KnnSettings
from cyborgs.features.cache import Extraction
from cyborgs.features.transforms import Square
from cyborgs.metrics.judged import Hits
from cyborgs.ops.normalise import unit_rows

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


def open_data(data: str, settings: KnnSettings, seed: int, data_set: str = "") -> ClassifiedData:
    """Class folders: training photos vote, test photos are judged."""
    return open_folders(data, seed)


def evaluate(backbone: Backbone, data: ClassifiedData, settings: KnnSettings, context: Context) -> Result:
    """Top-1 by the vote of each number of neighbours, and label-free figures of the test photos.

    Raises:
        UserError: the features hold NaN.
    """
    layer = settings.layer or backbone.layers[-1]
    chosen = data.chosen(context.share, context.seed)
    square = Extraction(layer, Square(settings.size))
    train, test = features_of(backbone, [data.train.photos, data.test.photos], square, context)
    device = next(backbone.parameters()).device
    bank, queries = (unit_rows(torch.from_numpy(x).to(device)) for x in (train[chosen], test))
    labels, truth = data.train.labels[chosen], data.test.labels
    ks = list(dict.fromkeys(min(k, len(bank)) for k in settings.neighbours))
    near, order = nearest_rows(bank, queries, max(ks))
    voters = torch.from_numpy(labels).to(device)[order]
    right = {}
    for k in ks:
        found = votes(near[:, :k], voters[:, :k], len(data.train.classes), settings.temperature).argmax(dim=1)
        right[k] = found.cpu().numpy() == truth
    figures = {"top1": float(right[ks[0]].mean())}
    figures |= {f"top1_k{k}": float(right[k].mean()) for k in ks}
    figures |= {"commonest_class": float(np.bincount(truth).max() / len(truth))}
    figures |= label_free(backbone, data.test.photos, queries, layer, settings.size, context)
    return Result(
        "top1",
        figures,
        Hits(right[ks[0]]),
        asdict(settings) | {"neighbours": ks, "layer": layer},
        counts_of(data, len(chosen)),
        context.seed,
        class_shares(right[ks[0]], truth, data.test.classes),
        (
            *data.notes,
            *collapsed(torch.cat([bank, queries])),
            *unknown_classes(data, labels),
            *all_vote(settings.neighbours, len(bank)),
        ),
    )
