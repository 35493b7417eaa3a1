"""CYBORGS (ECCV 2022): mask-dependent contrast (Eq. 2) and clustering consistency (Eq. 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from cyborgs.losses import mask_contrastive_terms, vmf_cluster_loss
from cyborgs.methods.cyborgs.prototypes import cluster_views, draw_slice_clusters
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.methods.figures import cluster_figures, embedding_figures
from cyborgs.methods.method import JointMethod
from cyborgs.models.backbone import Backbone
from cyborgs.models.fusion import concatenate_at
from cyborgs.models.heads import MLPHead, embed_valid, valid_rows
from cyborgs.models.momentum import momentum_at, target_of, update_target
from cyborgs.ops import region_pool, resample, sample_regions
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed
from cyborgs.views.config import ViewSpec


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
        online, target = self._maps(batch, plan)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        if "contrast" in plan.losses:
            found = self.joint_losses(*self._embed(batch, online, target), plan, measure=measure)
            losses |= found.losses
            metrics |= found.metrics
        if "cluster" in plan.losses:
            losses["cluster"] = self._cluster(batch, online, target, plan, seed, metrics, measure)
        return StepOutput(losses, metrics)

    def embed(self, batch: Batch, plan: EpochPlan) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions of both views; their target projections (B, R, D) and region ids (B, R)."""
        return self._embed(batch, *self._maps(batch, plan))

    def joint_losses(
        self, online: Sequence[Tensor], fixed: Sequence[Tensor], plan: EpochPlan, *, measure: bool = False
    ) -> StepOutput:
        """``contrast``: Eq. 2 over all images that are given, and those of the other processes."""
        ids = fixed[2:]
        terms = mask_contrastive_terms(
            *online, *fixed, temperature=self.config.temperature, normalise=self.config.normalise
        )
        metrics = {
            "contrast/matched": terms["matched"],
            "contrast/matched_mean": terms["matched_mean"],
            "contrast/regions": torch.stack([(i >= 0).sum(dim=1).float().mean() for i in ids]).mean(),
        }
        if measure:
            metrics |= embedding_figures(online, fixed[:2], [i >= 0 for i in ids])
        return StepOutput({"contrast": terms["loss"]}, metrics)

    def remaining_step(
        self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False
    ) -> tuple[list[Tensor], StepOutput]:
        """Predictions with gradient, and ``cluster`` where it is planned: for it alone the target runs again."""
        cluster = "cluster" in plan.losses
        online, target = self._maps(batch, plan, self.clustered if cluster else ())
        metrics: dict[str, Tensor] = {}
        losses = {"cluster": self._cluster(batch, online, target, plan, seed, metrics, measure)} if cluster else {}
        return self._embed(batch, online, ())[0], StepOutput(losses, metrics)

    def after_step(self, progress: float) -> None:
        """xi <- m xi + (1 - m) theta, for backbone and projector."""
        m = momentum_at(progress, self.config.momentum, self.config.momentum_schedule)
        update_target(self.backbone, self.target_backbone, m)
        update_target(self.projector, self.target_projector, m)

    def _pool(self, maps: dict[str, Tensor], labels: Tensor, ids: Tensor) -> Tensor:
        """Eq. 1 on the fused map. Layers are pooled one by one: pooling and concatenation commute, and no copy is made."""
        return torch.cat([region_pool(resample(maps[layer], self.grid), labels, ids) for layer in self.fused], dim=-1)

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

    def _embed(
        self, batch: Batch, online: Sequence[dict[str, Tensor]], target: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions of each view; target projections (none where ``target`` is empty) and region ids."""
        assert batch.label_order is not None
        predictions, projections, ids = [], [], []
        for v, (view, maps) in enumerate(zip(batch.views, online, strict=True)):
            assert view.labels is not None
            regions = sample_regions(view.labels, batch.label_order, self.config.regions, batch.void)
            valid = regions >= 0
            rows = valid_rows(valid)
            projected = embed_valid(self.projector, self._pool(maps, view.labels, regions), valid, rows)
            predictions.append(embed_valid(self.predictor, projected, valid, rows))
            if target:
                with torch.no_grad():
                    pooled = self._pool(target[v], view.labels, regions)
                    projections.append(embed_valid(self.target_projector, pooled, valid, rows))
            ids.append(regions)
        return predictions, [*projections, *ids]

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
        size = self.config.slice_size
        totals, intra, inter = [], [], []
        for start in range(0, len(batch), size):
            part = slice(start, start + size)
            coordinates = (seed.epoch, seed.step, (batch.first + start) // size)
            k = draw_slice_clusters(self.config, clusters, sources[0][part], seed.seed, coordinates)
            assignments, prototypes = cluster_views(self.config, [s[part] for s in sources], k, seed.seed, coordinates)
            terms = vmf_cluster_loss(
                maps[0][part],
                maps[1][part],
                assignments[0],
                assignments[1],
                prototypes[0],
                prototypes[1],
                batch.views[0].geometry[part],
                batch.views[1].geometry[part],
                kappa=self.config.kappa,
                alignment=self.config.alignment,
                distance=self.config.distance,
            )
            if measure and start == 0:
                metrics.update(cluster_figures(maps[0][part].detach(), assignments[0], prototypes[0]))
            totals.append(terms["total"])
            scale = math.log(k) if k > 1 and self.config.distance == "vmf" else 1.0
            intra.append(terms["intra"].detach() / scale)
            inter.append(terms["inter"].detach() / scale)
        metrics["cluster/intra_over_log_k"] = torch.stack(intra).mean()
        metrics["cluster/inter_over_log_k"] = torch.stack(inter).mean()
        return torch.stack(totals).mean()


METHOD = Cyborgs
