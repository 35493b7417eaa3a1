"""Six views to one embedding, and what is salient and boxed to numbers."""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from cyborgs.methods.figures import embedding_figures
from cyborgs.methods.method import Method
from cyborgs.models.backbone import Backbone
from cyborgs.ops.normalise import unit_rows
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed
from cyborgs.views.config import ViewSpec
from tests.methods.toy_six.settings import ToySixConfig


@final
class ToySix(Method):
    """One head."""

    def __init__(self, config: ToySixConfig, backbone: Backbone, views: ViewSpec) -> None:
        super().__init__()
        self.config: ToySixConfig = config
        self.backbone = backbone
        self.layer = backbone.default_layers()[-1]
        self.head = nn.Linear(backbone.widths[self.layer], config.embedding)
        self.sizes = [views.size_of(v) for v in range(len(views.crops))]

    def training_step(self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False) -> StepOutput:
        """Squared distances of the views' embeddings; of three outputs and side data."""
        maps = [self.backbone(self.backbone.normalise(v.images), (self.layer,))[self.layer] for v in batch.views]
        outputs = [self.head(one.mean(dim=(2, 3))) for one in maps]
        unit = [unit_rows(one) for one in outputs]
        losses = {"views": sum(((unit[0] - one) ** 2).sum(1).mean() for one in unit[1:]) / 5}
        if "side" in plan.losses:
            side = batch.side
            salient = side["saliency/2"].mean(dim=(1, 2))
            boxed = (side["boxes/3"][:, :, 2] / self.sizes[3] * side["boxes/3/valid"]).mean(dim=1)
            near = (side["neighbours/shown"][:, None] == side["neighbours"]).float().sum(1)
            wanted = torch.stack([salient, boxed.to(salient), near.to(salient)], dim=1)
            losses["side"] = ((outputs[2][:, :3] - wanted.to(outputs[2])) ** 2).mean()
        return StepOutput(losses, embedding_figures(unit[:2], [one.detach() for one in unit[:2]]) if measure else {})

    def after_step(self, progress: float) -> None:
        """Nothing moves."""


METHOD = ToySix
