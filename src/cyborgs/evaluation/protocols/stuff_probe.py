"""A 1x1 convolution on one frozen map, trained as the FCN is, mIoU: what Figure 5b of CYBORGS takes for mask quality.

Logits are computed at the map's stride and enlarged; for a 1x1 convolution that is the same as enlarging the map. Test
photos are seen whole. The paper names the map (``layer2.2``), the data and the convolution; the rest of the recipe is ours.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense.network import FrozenProbe
from cyborgs.evaluation.dense.run import trained_and_judged
from cyborgs.evaluation.sets.pixel_sets import PixelData, open_for
from cyborgs.evaluation.settings.pixels import StuffProbeSettings

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


open_data = open_for


def evaluate(backbone: Backbone, data: PixelData, settings: StuffProbeSettings, context: Context) -> Result:
    """mIoU, mean accuracy of the classes, pixel accuracy; IoU by class.

    Raises:
        UserError: no such layer, damaged weights, or ``context.out`` holds another training.
    """
    layer = settings.layer or backbone.default_clustered()
    objective = FrozenProbe(
        backbone,
        layer,
        data.train.classes,
        ignore=data.train.ignore,
        align_corners=settings.align_corners,
        seed=context.seed,
    )
    said = asdict(settings) | {"layer": layer}
    return trained_and_judged(objective, backbone, data, settings, said, context)
