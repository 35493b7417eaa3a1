"""Finer maps from the same weights: dilation in the place of stride, in torchvision's ResNets."""

from __future__ import annotations

import importlib
from typing import Any, Final

from torch import nn

from cyborgs.errors import UserError
from cyborgs.models.backbone import Backbone

STAGES: Final = {"layer3": 16, "layer4": 32}
"""Those that may lose their stride, and what the network's stride is after them."""


def dilate(backbone: Backbone, output_stride: int) -> None:
    """Change the network in place so that its last map has a cell for each ``output_stride`` pixels.

    A stage whose stride is taken away doubles the dilation of all 3x3 convolutions after the one that had the stride,
    which itself keeps the dilation from before: every second cell of the new maps is what the network gave. For
    bottleneck blocks this is torchvision's ``replace_stride_with_dilation`` (half the dilation in each first block); for
    basic blocks, where torchvision has none, the first convolution of a stage has half of it.

    Args:
        backbone: a ResNet, ResNeXt or Wide ResNet of torchvision's; of another network only stride 32 can be had, as
            which it stays as it is.
        output_stride: 8, 16 or 32.

    Raises:
        UserError: another network.
    """
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride is 8, 16 or 32, got {output_stride}")
    if output_stride == 32:
        return
    models = importlib.import_module("torchvision.models.resnet")
    trunk: Any = backbone.trunk
    if not isinstance(trunk, models.ResNet):
        raise UserError(
            f"output_stride: {output_stride} needs a ResNet of torchvision, {backbone.config.name} is none. "
            "Set output_stride 32, which every network has."
        )
    dilation = 1
    for name, stride in STAGES.items():
        if stride <= output_stride:
            continue
        for number, block in enumerate(getattr(trunk, name)):
            convolutions = [m for m in (block.conv1, block.conv2) if m.kernel_size == (3, 3)]
            for position, convolution in enumerate(convolutions):
                first = number == 0 and position == 0
                _set(convolution, dilation if first else 2 * dilation)
            if number == 0:
                block.stride = 1
                block.downsample[0].stride = (1, 1)
        dilation *= 2
    backbone.remeasure()


def _set(convolution: nn.Conv2d, dilation: int) -> None:
    convolution.stride = (1, 1)
    convolution.dilation = convolution.padding = (dilation, dilation)
