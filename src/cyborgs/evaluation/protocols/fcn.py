"""Segmentation by an FCN that is fine-tuned end to end, mIoU: COCO-Stuff-10k, Cityscapes, VOC 2012, ADE20K, CamVid, a folder.

The network's last stages are dilated, so that its last map has a cell for each 8 pixels; on it two 3x3 convolutions, a
third on theirs and the map, a 1x1; beside it a small head on the map before, whose loss counts 0.4 (mmsegmentation's FCN,
as DenseCL uses it). Published in CYBORGS for COCO-Stuff-10k (Figure 5) as curves alone; the recipe there is ours.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense.network import Fcn
from cyborgs.evaluation.dense.run import trained_and_judged
from cyborgs.evaluation.sets.pixel_sets import PixelData, open_for
from cyborgs.evaluation.settings.pixels import FcnSettings

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


open_data = open_for


def evaluate(backbone: Backbone, data: PixelData, settings: FcnSettings, context: Context) -> Result:
    """mIoU, mean accuracy of the classes, pixel accuracy; IoU by class.

    Raises:
        UserError: the network cannot be dilated (``output_stride`` 32 needs no dilation), damaged weights, one process
            too many, or ``context.out`` holds another training.
    """
    objective = Fcn(
        backbone,
        data.train.classes,
        ignore=data.train.ignore,
        output_stride=settings.output_stride,
        channels=settings.head_channels,
        auxiliary_weight=settings.auxiliary_weight,
        align_corners=settings.align_corners,
        seed=context.seed,
    )
    return trained_and_judged(objective, backbone, data, settings, asdict(settings), context)
