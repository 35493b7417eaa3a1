"""What frozen features tell without any label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.photos.features import features_of
from cyborgs.evaluation.sets.splits import first_of
from cyborgs.features.cache import Extraction
from cyborgs.features.transforms import Drawn
from cyborgs.metrics.spread import alignment, uniformity
from cyborgs.ops.normalise import unit_rows
from cyborgs.ops.spectrum import effective_rank

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

PAIRS: Final = 200
"""Photos whose alignment is measured, the same with the same crops for every seed: they need a pass of their own."""
_PAIRS: Final = 53
"""Stream for their draw (``splits.first_of``)."""


def label_free(
    backbone: Backbone, photos: Images, unit: Tensor, layer: str, size: int, context: Context
) -> dict[str, float]:
    """``alignment``, ``uniformity`` and ``effective_rank`` of photos.

    Args:
        backbone: frozen.
        photos: N of them.
        unit: their features, (N, D), of unit length.
        layer: whose pooled map they are.
        size: side of the crops that are compared with the photos, in pixels.
        context: cache and loader.
    """
    pairs = first_of(len(photos), PAIRS, 0, _PAIRS)
    drawn = Extraction(layer, Drawn(size, 0))
    (crops,) = features_of(backbone, [photos.subset(pairs.tolist())], drawn, context)
    others = unit_rows(torch.from_numpy(crops).to(unit.device))
    return {
        "alignment": alignment(unit[torch.from_numpy(pairs).to(unit.device)], others),
        "uniformity": uniformity(unit),
        "effective_rank": float(effective_rank(unit)),
    }
