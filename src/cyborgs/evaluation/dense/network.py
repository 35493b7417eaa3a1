"""What is trained: a fully convolutional head on the whole network, or one 1x1 convolution on a frozen map."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyborgs.evaluation.training.finetune import Objective
from cyborgs.models.backbone import Backbone
from cyborgs.models.dilation import dilate
from cyborgs.seeds import derive

DROPOUT: Final = 0.1
MAIN: Final = "segmentation"
AUXILIARY: Final = "auxiliary"
_HEAD: Final = 71  # stream of derive(seed, "evaluation", ...)


def enlarge(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """Maps (B, C, h, w) at (height, width), bilinear; equal sizes pass through."""
    if logits.shape[-2:] == (height, width):
        return logits
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=align_corners)


def cross_entropy(logits: Tensor, targets: Tensor, ignore: int, align_corners: bool) -> Tensor:
    """Mean over the labelled pixels of the batch, of logits enlarged to them; 0 where there is none.

    Args:
        logits: (B, classes, h, w), any float.
        targets: uint8 (B, H, W); pixels equal to ``ignore`` count nowhere.
    """
    enlarged = enlarge(logits.float(), targets.shape[1], targets.shape[2], align_corners)
    total = F.cross_entropy(enlarged, targets.long(), ignore_index=ignore, reduction="sum")
    return total / (targets != ignore).sum().clamp_min(1)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution without bias, BatchNorm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def classifier(inputs: int, classes: int) -> nn.Conv2d:
    """1x1 convolution, weights N(0, 0.01), bias 0."""
    conv = nn.Conv2d(inputs, classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


@final
class FcnHead(nn.Module):
    """Two 3x3 convolutions, a third on what they give and what they were given, dropout of channels, 1x1."""

    def __init__(self, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(inputs, channels), convolution(channels, channels))
        self.joined = convolution(inputs + channels, channels)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classes = classifier(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) -> logits (B, classes, h, w)."""
        joined: Tensor = self.joined(torch.cat([x, self.body(x)], dim=1))
        logits: Tensor = self.classes(self.dropout(joined))
        return logits


def auxiliary_head(inputs: int, channels: int, classes: int) -> nn.Sequential:
    """One 3x3 convolution, dropout of channels, 1x1."""
    return nn.Sequential(convolution(inputs, channels), nn.Dropout2d(DROPOUT), classifier(channels, classes))


@final
class Fcn(Objective):
    """A copy of the backbone, all of it trained, with a head on its last map and another on the map before."""

    def __init__(
        self,
        backbone: Backbone,
        classes: int,
        *,
        ignore: int = 255,
        output_stride: int = 8,
        channels: int = 512,
        auxiliary_weight: float = 0.4,
        align_corners: bool = True,
        seed: int = 0,
    ) -> None:
        """Copy the backbone and build the heads; their weights come from the seed.

        Args:
            backbone: stays as it is.
            classes: number of them.
            ignore: label that counts nowhere.
            output_stride: 8, 16 or 32 pixels a cell of the last map (``models.dilation``).
            channels: of the head; the auxiliary one has half as many.
            auxiliary_weight: factor of its loss; 0: there is none.
            align_corners: how logits are enlarged.

        Raises:
            UserError: the network has no maps at strides 8, 16 and 32, or cannot be dilated.
        """
        super().__init__()
        before, last = backbone.default_layers()[-2:]
        self.backbone = _copied(backbone)
        dilate(self.backbone, output_stride)
        self._ignore, self._align, self._weight = ignore, align_corners, auxiliary_weight
        self._layers = (before, last) if auxiliary_weight else (last,)
        widths = backbone.widths
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "evaluation", _HEAD))
            self.head = FcnHead(widths[last], channels, classes)
            self.auxiliary = auxiliary_head(widths[before], channels // 2, classes) if auxiliary_weight else None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the losses."""
        return (MAIN,) if self.auxiliary is None else (MAIN, AUXILIARY)

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, classes, h, w) at the last map's stride."""
        found: Tensor = self.head(self._maps(images)[-1])
        return found

    def losses(self, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy of both heads, the auxiliary one's times its weight; targets uint8 (B, H, W)."""
        maps = self._maps(images)
        found = {MAIN: cross_entropy(self.head(maps[-1]), targets, self._ignore, self._align)}
        if self.auxiliary is not None:
            auxiliary = cross_entropy(self.auxiliary(maps[0]), targets, self._ignore, self._align)
            found[AUXILIARY] = self._weight * auxiliary
        return found

    def groups(self, head_lr_factor: float) -> list[dict[str, Any]]:
        """The backbone's parameters, and the heads'."""
        heads = [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
        return [{"params": list(self.backbone.parameters())}, {"params": heads, "lr_scale": head_lr_factor}]

    def _maps(self, images: Tensor) -> list[Tensor]:
        found = self.backbone(self.backbone.normalise(images), layers=self._layers)
        return [found[name] for name in self._layers]


@final
class FrozenProbe(Objective):
    """One 1x1 convolution on one map of a copy of the backbone, which stays in eval mode and without gradients.

    A 1x1 convolution and bilinear interpolation commute: logits at the map's stride, enlarged, are those of the enlarged
    map, at a small part of the work.
    """

    def __init__(
        self,
        backbone: Backbone,
        layer: str,
        classes: int,
        *,
        ignore: int = 255,
        align_corners: bool = True,
        seed: int = 0,
    ) -> None:
        """Copy the backbone; the convolution's weights come from the seed. UserError: no such layer."""
        super().__init__()
        backbone.check_layers([layer])
        self.backbone = _copied(backbone).eval().requires_grad_(False)
        self._layer, self._ignore, self._align = layer, ignore, align_corners
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "evaluation", _HEAD))
            self.head = classifier(backbone.widths[layer], classes)

    names = (MAIN,)

    def train(self, mode: bool = True) -> Self:
        """Train mode for the convolution; the network's statistics stay as they are."""
        super().train(mode)
        self.backbone.eval()
        return self

    def logits(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, classes, h, w) at the map's stride."""
        with torch.no_grad():
            found = self.backbone(self.backbone.normalise(images), layers=(self._layer,))[self._layer]
        logits: Tensor = self.head(found)
        return logits

    def losses(self, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Cross-entropy; targets uint8 (B, H, W)."""
        return {MAIN: cross_entropy(self.logits(images), targets, self._ignore, self._align)}

    def groups(self, head_lr_factor: float) -> list[dict[str, Any]]:
        """The convolution's parameters alone."""
        return [{"params": list(self.head.parameters()), "lr_scale": head_lr_factor}]


def _copied(backbone: Backbone) -> Backbone:
    copied = copy.deepcopy(backbone).requires_grad_(True)
    copied.zero_grad(set_to_none=True)
    return copied
