"""BYOL (Grill et al., 2020): each view's prediction of the other view's target embedding."""

from __future__ import annotations

from typing import final

import torch

from cyborgs.losses import byol_loss
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.figures import embedding_figures
from cyborgs.methods.method import Method
from cyborgs.models.backbone import Backbone
from cyborgs.models.heads import MLPHead
from cyborgs.models.momentum import momentum_at, target_of, update_target
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed
from cyborgs.views.config import ViewSpec


@final
class Byol(Method):
    """Online backbone, projector and predictor; target backbone and projector; the mean of one layer's map."""

    def __init__(self, config: ByolConfig, backbone: Backbone, views: ViewSpec) -> None:
        super().__init__()
        self.config: ByolConfig = config
        self.backbone = backbone
        self.layer = config.layer or backbone.default_layers()[-1]
        self.projector = MLPHead(backbone.widths[self.layer], config.hidden, config.embedding)
        self.predictor = MLPHead(config.embedding, config.hidden, config.embedding)
        self.target_backbone = target_of(backbone)
        self.target_projector = target_of(self.projector)

    def training_step(self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False) -> StepOutput:
        """``byol``: both directions of 2 - 2 cos, mean over images."""
        images = [self.backbone.normalise(view.images) for view in batch.views]
        predictions = [
            self.predictor(self.projector(self.backbone(x, (self.layer,))[self.layer].mean(dim=(2, 3)))) for x in images
        ]
        with torch.no_grad():
            targets = [
                self.target_projector(self.target_backbone(x, (self.layer,))[self.layer].mean(dim=(2, 3)))
                for x in images
            ]
        metrics = embedding_figures(predictions, targets) if measure else {}
        return StepOutput({"byol": byol_loss(*predictions, *targets)}, metrics)

    def after_step(self, progress: float) -> None:
        """xi <- m xi + (1 - m) theta, for backbone and projector."""
        m = momentum_at(progress, self.config.momentum, self.config.momentum_schedule)
        update_target(self.backbone, self.target_backbone, m)
        update_target(self.projector, self.target_projector, m)


METHOD = Byol
