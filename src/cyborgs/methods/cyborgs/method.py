"""CYBORGS (ECCV 2022): mask-dependent contrast (Eq. 2) and clustering consistency (Eq. 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from cyborgs.errors import NotFiniteError
from cyborgs.losses import mask_contrastive_terms, vmf_cluster_loss
from cyborgs.methods.cyborgs.prototypes import cluster_slices
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.methods.figures import cluster_figures, embedding_figures
from cyborgs.methods.method import JointMethod
from cyborgs.models.backbone import Backbone
from cyborgs.models.fusion import concatenate_at
from cyborgs.models.heads import MLPHead
from cyborgs.models.momentum import momentum_at, target_of, update_target
from cyborgs.ops import region_pool, resample, sample_regions
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed, View
from cyborgs.views.config import ViewSpec


class SampledRegions(NamedTuple):
    """The sampled regions of one view of B images, R slots an image."""

    ids: Tensor
    """int64 (B, R): a label, or -1 in a slot without a region."""
    predictions: Tensor
    """(B, R, D) of the online network, with gradient; zeros in a slot without a region."""
    projections: Tensor
    """(B, R, D) of the target network, without gradient; zeros in a slot without a region."""

    @property
    def valid(self) -> Tensor:
        """bool (B, R): the slots with a region."""
        return self.ids >= 0


@final
class Cyborgs(JointMethod):
    """Online backbone, projector and predictor; target backbone and projector."""

    joint = frozenset({"contrast"})

    def __init__(self, config: CyborgsConfig, backbone: Backbone, views: ViewSpec) -> None:
        super().__init__()
        self.config: CyborgsConfig = config
        self.backbone = backbone
        self.size = views.size
        self.grid = views.grid
        self.fused = config.fused_layers or backbone.default_layers()
        self.clustered = config.clustered_layers or (backbone.default_clustered(),)
        width = sum(backbone.widths[layer] for layer in self.fused)
        self.projector = MLPHead(width, config.hidden, config.embedding)
        self.predictor = MLPHead(config.embedding, config.hidden, config.embedding)
        self.target_backbone = target_of(backbone)
        self.target_projector = target_of(self.projector)

    def training_step(self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False) -> StepOutput:
        """``contrast`` and ``cluster`` as the plan asks; the forward pass stops at the last layer that is needed."""
        sampled = self._sample(batch) if "contrast" in plan.losses else []
        online, target = self._maps(batch, plan)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        if sampled:
            found = self._contrast(self._regions(batch, sampled, online, target), measure)
            losses |= found.losses
            metrics |= found.metrics
        if "cluster" in plan.losses:
            losses["cluster"] = self._cluster(batch, online, target, plan, seed, metrics, measure)
        return StepOutput(losses, metrics)

    def embed(self, batch: Batch, plan: EpochPlan) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions of the views (B, R, D); then of each view its ids (B, R) and target projections (B, R, D)."""
        views = self._regions(batch, self._sample(batch), *self._maps(batch, plan))
        return [view.predictions for view in views], [x for view in views for x in (view.ids, view.projections)]

    def joint_losses(
        self, online: Sequence[Tensor], fixed: Sequence[Tensor], plan: EpochPlan, *, measure: bool = False
    ) -> StepOutput:
        """``contrast``: Eq. 2 over all images that are given, and those of the other processes."""
        views = zip(fixed[::2], online, fixed[1::2], strict=True)
        return self._contrast([SampledRegions(*view) for view in views], measure)

    def remaining_step(
        self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False
    ) -> tuple[list[Tensor], StepOutput]:
        """Predictions with gradient, and ``cluster`` where it is planned: for it alone the target runs again."""
        sampled = self._sample(batch)
        cluster = "cluster" in plan.losses
        online, target = self._maps(batch, plan, self.clustered if cluster else ())
        metrics: dict[str, Tensor] = {}
        losses = {"cluster": self._cluster(batch, online, target, plan, seed, metrics, measure)} if cluster else {}
        predictions = [self._predict(*view) for view in zip(batch.views, sampled, online, strict=True)]
        return predictions, StepOutput(losses, metrics)

    def after_step(self, progress: float) -> None:
        """xi <- m xi + (1 - m) theta, for backbone and projector."""
        m = momentum_at(progress, self.config.momentum, self.config.momentum_schedule)
        update_target(self.backbone, self.target_backbone, m)
        update_target(self.projector, self.target_projector, m)

    def _pool(self, maps: dict[str, Tensor], view: View, ids: Tensor) -> Tensor:
        """Eq. 1 on the fused map, (B R, C). Layers are pooled one by one: it commutes with their concatenation."""
        assert view.labels is not None
        pooled = [region_pool(resample(maps[layer], self.grid), view.labels, ids) for layer in self.fused]
        return torch.cat(pooled, dim=-1).flatten(0, 1)

    def _maps(
        self, batch: Batch, plan: EpochPlan, target_layers: tuple[str, ...] | None = None
    ) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """Maps of both views: the online network's layers that the plan needs, and the target's (None: the same)."""
        needed = {"cluster": self.clustered, "contrast": self.fused}
        layers = tuple(dict.fromkeys(layer for loss in needed if loss in plan.losses for layer in needed[loss]))
        target_layers = layers if target_layers is None else target_layers
        images = [self.backbone.normalise(view.images) for view in batch.views]
        online = [self.backbone(x, layers) for x in images]
        with torch.no_grad():
            return online, [self.target_backbone(x, target_layers) for x in images] if target_layers else []

    def _sample(self, batch: Batch) -> list[Tensor]:
        """Ids (B, R) of each view's regions: from the label grids alone, before any forward pass."""
        assert batch.label_order is not None
        sampled = []
        for view in batch.views:
            assert view.labels is not None
            sampled.append(sample_regions(view.labels, batch.label_order, self.config.regions, batch.void))
        return sampled

    def _predict(self, view: View, ids: Tensor, maps: dict[str, Tensor]) -> Tensor:
        """Predictions (B, R, D). All slots go through the heads as rows of one matrix, those without a region at weight 0."""
        weight = (ids >= 0).flatten()
        projected = self.projector(self._pool(maps, view, ids), weight)
        predicted: Tensor = self.predictor(projected, weight)
        return predicted.view(*ids.shape, -1)

    @torch.no_grad()
    def _project(self, view: View, ids: Tensor, maps: dict[str, Tensor]) -> Tensor:
        """Target projections (B, R, D)."""
        projected: Tensor = self.target_projector(self._pool(maps, view, ids), (ids >= 0).flatten())
        return projected.view(*ids.shape, -1)

    def _regions(
        self,
        batch: Batch,
        sampled: Sequence[Tensor],
        online: Sequence[dict[str, Tensor]],
        target: Sequence[dict[str, Tensor]],
    ) -> list[SampledRegions]:
        return [
            SampledRegions(ids, self._predict(view, ids, maps), self._project(view, ids, fixed))
            for view, ids, maps, fixed in zip(batch.views, sampled, online, target, strict=True)
        ]

    def _contrast(self, views: Sequence[SampledRegions], measure: bool) -> StepOutput:
        """Eq. 2, and its figures."""
        first, second = views
        terms = mask_contrastive_terms(
            first.predictions,
            second.predictions,
            first.projections,
            second.projections,
            first.ids,
            second.ids,
            temperature=self.config.temperature,
            normalise=self.config.normalise,
        )
        valid = [view.valid for view in views]
        metrics = {
            "contrast/matched": terms["matched"],
            "contrast/matched_mean": terms["matched_mean"],
            "contrast/regions": torch.stack([v.sum(dim=1).float().mean() for v in valid]).mean(),
        }
        if measure:
            online, target = [view.predictions for view in views], [view.projections for view in views]
            metrics |= embedding_figures(online, target, valid)
        return StepOutput({"contrast": terms["loss"]}, metrics)

    def _cluster(
        self,
        batch: Batch,
        online: list[dict[str, Tensor]],
        target: list[dict[str, Tensor]],
        plan: EpochPlan,
        seed: StepSeed,
        metrics: dict[str, Tensor],
        measure: bool,
    ) -> Tensor:
        """Loss 2, the mean over the slices of this batch; each slice has its own K and its own prototypes."""
        clusters = None if "contrast" in plan.losses else self.config.warmup_clusters
        side = self.size // 8
        maps = [concatenate_at([m[layer] for layer in self.clustered], side, side) for m in online]
        with torch.no_grad():
            # The paper takes P from the online network on view 1, and P' from the target on view 2.
            first = online if self.config.prototypes == "paper" else target
            sources = [
                concatenate_at([m[layer] for layer in self.clustered], side, side).detach()
                for m in (first[0], target[1])
            ]
        if measure and not all(bool(torch.isfinite(source.sum())) for source in sources):
            raise NotFiniteError("k-means: the maps hold NaN or infinity")
        totals, intra, inter = [], [], []
        place = (seed.seed, seed.epoch, seed.step, batch.first)
        for number, part in enumerate(cluster_slices(self.config, sources, clusters, *place)):
            images, k = part.images, part.k
            terms = vmf_cluster_loss(
                maps[0][images],
                maps[1][images],
                *part.assignments,
                *part.prototypes,
                batch.views[0].geometry[images],
                batch.views[1].geometry[images],
                kappa=self.config.kappa,
                alignment=self.config.alignment,
                distance=self.config.distance,
            )
            if measure and number == 0:
                metrics.update(cluster_figures(maps[0][images].detach(), part.assignments[0], part.prototypes[0]))
            totals.append(terms["total"])
            scale = math.log(k) if k > 1 and self.config.distance == "vmf" else 1.0
            intra.append(terms["intra"].detach() / scale)
            inter.append(terms["inter"].detach() / scale)
        metrics["cluster/intra_over_log_k"] = torch.stack(intra).mean()
        metrics["cluster/inter_over_log_k"] = torch.stack(inter).mean()
        return torch.stack(totals).mean()


METHOD = Cyborgs
