"""CYBORGS (ECCV 2022): mask-dependent contrast (Eq. 2) and clustering consistency (Eq. 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from cyborgs.losses import mask_contrastive_terms, vmf_cluster_loss
from cyborgs.methods.config import CyborgsConfig
from cyborgs.methods.method import Method
from cyborgs.models.backbone import Backbone
from cyborgs.models.fusion import concatenate_at
from cyborgs.models.heads import MLPHead, embed_valid, valid_rows
from cyborgs.models.momentum import momentum_at, target_of, update_target
from cyborgs.ops import euclidean_kmeans, region_pool, resample, sample_regions, spherical_kmeans
from cyborgs.seeds import derive, numpy_generator
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed, View, ViewGeometry

POINTS_PER_CLUSTER = 4
"""K of loss 2 is never more than a quarter of the points that are clustered."""


@final
class Cyborgs(Method):
    """Online backbone, projector and predictor; target backbone and projector."""

    def __init__(self, config: CyborgsConfig, backbone: Backbone, size: int, grid: int) -> None:
        super().__init__()
        self.config: CyborgsConfig = config
        self.backbone = backbone
        self.size = size
        self.grid = grid
        self.fused = config.fused_layers or backbone.default_layers()
        self.clustered = config.clustered_layers or (backbone.default_clustered(),)
        width = sum(backbone.widths[layer] for layer in self.fused)
        self.projector = MLPHead(width, config.hidden, config.embedding)
        self.predictor = MLPHead(config.embedding, config.hidden, config.embedding)
        self.target_backbone = target_of(backbone)
        self.target_projector = target_of(self.projector)

    def training_step(self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False) -> StepOutput:
        """``contrast`` and ``cluster`` as the plan asks; the forward pass stops at the last layer that is needed."""
        contrast, cluster = "contrast" in plan.losses, "cluster" in plan.losses
        layers = tuple(dict.fromkeys((*(self.clustered if cluster else ()), *(self.fused if contrast else ()))))
        images = [self.backbone.normalise(view.images) for view in batch.views]
        online = [self.backbone(x, layers) for x in images]
        with torch.no_grad():
            target = [self.target_backbone(x, layers) for x in images]
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        if contrast:
            losses["contrast"] = self._contrast(batch, online, target, metrics)
        if cluster:
            clusters = None if contrast else self.config.warmup_clusters
            losses["cluster"] = self._cluster(batch, online, target, clusters, seed, metrics)
        return StepOutput(losses, metrics)

    def after_step(self, progress: float) -> None:
        """xi <- m xi + (1 - m) theta, for backbone and projector."""
        m = momentum_at(progress, self.config.momentum, self.config.momentum_schedule)
        update_target(self.backbone, self.target_backbone, m)
        update_target(self.projector, self.target_projector, m)

    def _pool(self, maps: dict[str, Tensor], labels: Tensor, ids: Tensor) -> Tensor:
        """Eq. 1 on the fused map. Layers are pooled one by one: pooling and concatenation commute, and no copy is made."""
        return torch.cat([region_pool(resample(maps[layer], self.grid), labels, ids) for layer in self.fused], dim=-1)

    def _contrast(
        self, batch: Batch, online: list[dict[str, Tensor]], target: list[dict[str, Tensor]], metrics: dict[str, Tensor]
    ) -> Tensor:
        assert batch.label_order is not None
        predictions, projections, ids = [], [], []
        for view, maps, target_maps in zip(batch.views, online, target, strict=True):
            assert view.labels is not None
            regions = sample_regions(view.labels, batch.label_order, self.config.regions, batch.void)
            valid = regions >= 0
            rows = valid_rows(valid)
            projected = embed_valid(self.projector, self._pool(maps, view.labels, regions), valid, rows)
            predictions.append(embed_valid(self.predictor, projected, valid, rows))
            with torch.no_grad():
                pooled = self._pool(target_maps, view.labels, regions)
                projections.append(embed_valid(self.target_projector, pooled, valid, rows))
            ids.append(regions)
        terms = mask_contrastive_terms(
            *predictions, *projections, *ids, temperature=self.config.temperature, normalise=self.config.normalise
        )
        metrics["contrast/matched"] = terms["matched"]
        metrics["contrast/matched_mean"] = terms["matched_mean"]
        metrics["contrast/regions"] = torch.stack([(i >= 0).sum(dim=1).float().mean() for i in ids]).mean()
        return terms["loss"]

    def _cluster(
        self,
        batch: Batch,
        online: list[dict[str, Tensor]],
        target: list[dict[str, Tensor]],
        clusters: int | None,
        seed: StepSeed,
        metrics: dict[str, Tensor],
    ) -> Tensor:
        """Loss 2, the mean over the slices of this batch; each slice has its own K and its own prototypes."""
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
            k = self._draw_clusters(clusters, sources[0][part], seed.seed, coordinates)
            assignments, prototypes = self._prototypes([s[part] for s in sources], k, seed.seed, coordinates)
            terms = vmf_cluster_loss(
                maps[0][part],
                maps[1][part],
                assignments[0],
                assignments[1],
                prototypes[0],
                prototypes[1],
                _geometry(batch.views[0], part),
                _geometry(batch.views[1], part),
                kappa=self.config.kappa,
                alignment=self.config.alignment,
                distance=self.config.distance,
            )
            totals.append(terms["total"])
            scale = math.log(k) if k > 1 and self.config.distance == "vmf" else 1.0
            intra.append(terms["intra"].detach() / scale)
            inter.append(terms["inter"].detach() / scale)
        metrics["cluster/intra_over_log_k"] = torch.stack(intra).mean()
        metrics["cluster/inter_over_log_k"] = torch.stack(inter).mean()
        return torch.stack(totals).mean()

    def _draw_clusters(self, fixed: int | None, maps: Tensor, seed: int, coordinates: tuple[int, ...]) -> int:
        points = maps.shape[0] * maps.shape[2] * maps.shape[3]
        low, high = self.config.clusters
        k = fixed or int(numpy_generator(seed, "slice", *coordinates).integers(low, high + 1))
        return max(1, min(k, points // POINTS_PER_CLUSTER))

    def _prototypes(
        self, maps: Sequence[Tensor], k: int, seed: int, coordinates: tuple[int, ...]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Clusters each view of one slice: assignments (b, h, w) and prototypes (k, D), without gradient."""
        cluster = spherical_kmeans if self.config.distance == "vmf" else euclidean_kmeans
        assignments: list[Tensor] = []
        prototypes: list[Tensor] = []
        for view, y in enumerate(maps):
            points = y.permute(0, 2, 3, 1).flatten(0, 2).float()
            start = prototypes[0] if view and self.config.linked_start else None
            labels, centroids = cluster(
                points,
                k,
                iterations=self.config.kmeans_iterations,
                seed=derive(seed, "slice", *coordinates, 1 + view),
                start=start,
            )
            assignments.append(labels.view(y.shape[0], y.shape[2], y.shape[3]))
            prototypes.append(centroids)
        return assignments, prototypes


def _geometry(view: View, part: slice) -> ViewGeometry:
    g = view.geometry
    return ViewGeometry(g.y0[part], g.x0[part], g.h[part], g.w[part], g.flip[part], g.image_h[part], g.image_w[part])
