"""VICReg (Bardes et al., ICLR 2022): three terms, no negatives, no target network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from cyborgs import distributed
from cyborgs.methods.figures import embedding_figures
from cyborgs.methods.method import JointMethod
from cyborgs.models.backbone import Backbone
from cyborgs.models.batchnorm import BatchNorm
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed
from cyborgs.views.config import ViewSpec
from vicreg_cyborgs.settings import VicregConfig


def spread_terms(z: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and covariance terms of embeddings (N, D), over the images of all processes."""
    count = distributed.all_reduce_sum(z.new_tensor(len(z)))
    z = z - distributed.all_reduce_sum(z.sum(dim=0)) / count
    covariance = distributed.all_reduce_sum(z.T @ z) / (count - 1)
    variances = covariance.diagonal()
    off_diagonal = covariance.square().sum() - variances.square().sum()
    return torch.relu(1 - torch.sqrt(variances + 1e-4)).mean(), off_diagonal / z.shape[1]


@final
class Vicreg(JointMethod):
    """Backbone and expander; the mean of one layer's map."""

    joint = frozenset({"vicreg"})

    def __init__(self, config: VicregConfig, backbone: Backbone, views: ViewSpec) -> None:
        super().__init__()
        self.config: VicregConfig = config
        self.backbone = backbone
        widths = (backbone.widths[config.layer], config.hidden, config.hidden)
        blocks = [nn.Sequential(nn.Linear(a, b), BatchNorm(b), nn.ReLU()) for a, b in pairwise(widths)]
        self.expander = nn.Sequential(*blocks, nn.Linear(config.hidden, config.hidden, bias=False))

    def embed(self, batch: Batch, plan: EpochPlan) -> tuple[list[Tensor], list[Tensor]]:
        """Embeddings of both views."""
        layer = self.config.layer
        maps = [self.backbone(self.backbone.normalise(view.images), (layer,))[layer] for view in batch.views]
        return [self.expander(x.mean(dim=(2, 3))) for x in maps], []

    def joint_losses(
        self, online: Sequence[Tensor], fixed: Sequence[Tensor], plan: EpochPlan, *, measure: bool = False
    ) -> StepOutput:
        """``vicreg``: Eq. 6 of the paper, variance as the mean over both views, as its authors' code has it."""
        a, b = (z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in online)
        (variance_a, covariance_a), (variance_b, covariance_b) = spread_terms(a), spread_terms(b)
        loss = self.config.invariance * (a - b).square().mean()
        loss = loss + self.config.variance * (variance_a + variance_b) / 2
        loss = loss + self.config.covariance * (covariance_a + covariance_b)
        return StepOutput({"vicreg": loss}, embedding_figures(online, online) if measure else {})

    def remaining_step(
        self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False
    ) -> tuple[list[Tensor], StepOutput]:
        """All is joint."""
        return self.embed(batch, plan)[0], StepOutput({}, {})

    def training_step(self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False) -> StepOutput:
        """``vicreg`` of the whole batch."""
        return self.joint_losses(*self.embed(batch, plan), plan, measure=measure)

    def after_step(self, progress: float) -> None:
        """There is no target network."""


METHOD = Vicreg
