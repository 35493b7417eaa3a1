"""VOC 2007's classes by the nearest neighbours of frozen features: quick, for monitoring.

Each of the k training images nearest by cosine votes with weight exp(cosine / T) for all classes that it holds; a class's
score is its share of the weights, and images are ranked by it. AP as in ``voc07``: scikit-learn's, and that of the
envelope beside it. Images in which a class has difficult objects alone vote against it, and do not count in the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.features import features_of
from cyborgs.evaluation.photos.pooled import all_vote, collapsed, counts_of
from cyborgs.evaluation.photos.voting import nearest_rows, shares_of_votes
from cyborgs.evaluation.sets.voc_lists import CLASSES, VocData, by_name, open_voc, without_test_images
from cyborgs.evaluation.settings.photos import VocKnnSettings
from cyborgs.features.cache import Extraction
from cyborgs.features.transforms import Square
from cyborgs.metrics.average_precision import average_precision, envelope_average_precision
from cyborgs.metrics.judged import Ranked
from cyborgs.ops.normalise import unit_rows

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


def open_data(data: str, settings: VocKnnSettings, seed: int, data_set: str = "voc") -> VocData:
    """trainval votes, test is judged; ``data`` is VOCdevkit/ or VOCdevkit/VOC2007."""
    return open_voc(data, settings.images, seed)


def evaluate(backbone: Backbone, data: VocData, settings: VocKnnSettings, context: Context) -> Result:
    """mAP by each number of neighbours; AP by class.

    Raises:
        UserError: no class has a training image, or the features hold NaN.
    """
    layer = settings.layer or backbone.layers[-1]
    chosen = data.chosen(context.share, context.seed)
    labels = data.train.labels[chosen] > 0
    used = np.flatnonzero(labels.any(axis=0))
    if not len(used):
        raise UserError(f"no training image has any of the {len(CLASSES)} classes; there are {len(labels)}.")
    square = Extraction(layer, Square(settings.size))
    found = features_of(backbone, [data.train.photos, data.test.photos], square, context)
    device = next(backbone.parameters()).device
    bank, queries = (unit_rows(torch.from_numpy(x).to(device)) for x in (found[0][chosen], found[1]))
    ks = list(dict.fromkeys(min(k, len(bank)) for k in settings.neighbours))
    near, order = nearest_rows(bank, queries, max(ks))
    present = torch.from_numpy(labels).to(device)[order]
    truth = data.test.labels[:, used]
    everything = np.ones(len(truth), np.int64)
    ranked = {}
    for k in ks:
        scores = shares_of_votes(near[:, :k], present[:, :k], settings.temperature)
        ranked[k] = Ranked(scores.cpu().numpy()[:, used], truth, average_precision)
    judged = ranked[ks[0]]
    envelope = replace(judged, precision=envelope_average_precision)
    figures = {"map": judged.score(everything), "map_envelope": envelope.score(everything)}
    figures |= {f"map_k{k}": one.score(everything) for k, one in ranked.items()}
    per_class = by_name(used, judged.by_class(everything))
    return Result(
        "map",
        figures,
        judged,
        asdict(settings) | {"neighbours": ks, "layer": layer},
        counts_of(data, len(chosen)),
        context.seed,
        per_class,
        (
            *collapsed(torch.cat([bank, queries])),
            *all_vote(settings.neighbours, len(bank)),
            *_left_out(used, per_class),
        ),
    )


def _left_out(used: NDArray[np.int64], per_class: Mapping[str, float]) -> list[str]:
    """Warnings of classes that are not in the mean."""
    seen = [CLASSES[c] for c in used]
    unseen = [name for name in CLASSES if name not in seen]
    warned = without_test_images([name for name in seen if np.isnan(per_class[name])])
    if unseen:
        warned.append(f"no training image has these classes, which are left out of the mean: {', '.join(unseen)}.")
    return warned
