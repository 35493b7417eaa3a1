"""Settings of CYBORGS and its schedule. No torch here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.engine.schedule import learning_rate, warmup_steps
from cyborgs.methods.settings import (
    WIDEST,
    Bootstrapping,
    MethodConfig,
    RunFacts,
    check,
    epochs_from_steps,
)
from cyborgs.structures import EpochPlan
from cyborgs.views.config import ViewSpec

PAPER_REFRESH: Final = 184_800
"""Steps between two bootstrappings in the paper: 100 epochs of COCO train2017 in batches of 64."""

FEW_STEPS: Final = 200
"""A warm-up of fewer steps at the full rate teaches little."""


@dataclass(frozen=True)
class CyborgsConfig(MethodConfig):
    """CYBORGS (Sections 3.2 to 3.4 and 4.1 of the paper)."""

    has_negatives = True
    batch_unit_field = "method.slice_size"

    warmup_epochs: int = 5
    """W: first epochs, with loss 2 alone; masks are made right after them."""
    refresh_every: int = 100
    """N: masks are made anew at epochs N, 2N, ...; 0: only once, at epoch W."""
    cluster_every: int = 5
    """M: after the warm-up loss 2 is added in epochs that M divides; 0: never."""
    cluster_weight: float = 0.1
    """lambda: weight of loss 2 after the warm-up."""
    warmup_steps: int | None = None
    """W in steps, rounded to whole epochs; replaces warmup_epochs where given."""
    refresh_steps: int | None = None
    """N in steps, rounded to whole epochs; replaces refresh_every where given."""
    cluster_steps: int | None = None
    """M in steps, rounded to whole epochs; replaces cluster_every where given."""
    clusters: tuple[int, int] = (2, 256)
    """Smallest and largest K, drawn per slice for loss 2 and per group for the masks (Section 3.3)."""
    warmup_clusters: int = 8
    """K of loss 2 during the warm-up."""
    slice_size: int = 8
    """Images that are clustered together for loss 2."""
    kmeans_iterations: int = 20
    """Iterations of spherical k-means: so many in a step, at most so many for the masks."""
    kappa: float = 10.0
    """Concentration of the von Mises-Fisher distributions (Eq. 4)."""
    distance: Literal["vmf", "euclidean"] = "vmf"
    """d of Eq. 3: Eq. 4, or the squared Euclidean distance of Table 2f."""
    alignment: Literal["overlap", "none"] = "overlap"
    """Inter term at the same scene points of both views, or not at all."""
    prototypes: Literal["target", "paper"] = "target"
    """Prototypes of both views from the target network, or the paper's: online for view 1, target for view 2."""
    linked_start: bool = False
    """Start the clustering of view 2 from view 1's centroids."""
    regions: int = 16
    """R: regions sampled per view."""
    temperature: float = 0.1
    """T of the contrastive loss."""
    normalise: Literal["slots", "matched"] = "slots"
    """Divide the contrastive loss by all slots (DetCon), or by the matched anchors."""
    fused_layers: tuple[str, ...] = ()
    """Layers whose maps are concatenated for the contrastive loss; empty: the last of strides 8, 16 and 32."""
    clustered_layers: tuple[str, ...] = ()
    """Layers that are clustered; empty: the last block at stride 8 (layer2.2 in the paper's counting)."""
    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    embedding: int = 256
    """Width of the embeddings."""
    momentum: float = 0.996
    """Momentum of the target network."""
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    """constant, or BYOL's half cosine that ends at 1."""

    def __post_init__(self) -> None:
        for name in ("warmup_epochs", "refresh_every", "cluster_every"):
            check(getattr(self, name) >= 0, f"method.{name}", getattr(self, name), "a whole number of at least 0")
        for name in ("warmup_steps", "refresh_steps", "cluster_steps"):
            value = getattr(self, name)
            check(value is None or value >= 0, f"method.{name}", value, "a whole number of at least 0")
        low, high = self.clusters
        check(2 <= low <= high <= 256, "method.clusters", self.clusters, "2 <= low <= high <= 256")
        check(1 <= self.warmup_clusters <= 256, "method.warmup_clusters", self.warmup_clusters, "1 to 256")
        check(self.cluster_weight >= 0, "method.cluster_weight", self.cluster_weight, "a number of at least 0")
        for name in ("hidden", "embedding"):
            check(0 < getattr(self, name) <= WIDEST, f"method.{name}", getattr(self, name), f"1 to {WIDEST}")
        for name in ("slice_size", "kmeans_iterations"):
            check(getattr(self, name) > 0, f"method.{name}", getattr(self, name), "a positive whole number")
        check(1 <= self.regions <= 256, "method.regions", self.regions, "1 to 256")
        check(self.kappa > 0, "method.kappa", self.kappa, "a positive number")
        check(self.temperature > 0, "method.temperature", self.temperature, "a positive number")
        check(0 <= self.momentum <= 1, "method.momentum", self.momentum, "a number from 0 to 1")

    def resolved(self, steps_per_epoch: int) -> CyborgsConfig:
        """W, N and M in epochs, whatever unit they were given in."""

        def epochs(steps: int | None, otherwise: int) -> int:
            return otherwise if steps is None else epochs_from_steps(steps, steps_per_epoch)

        return replace(
            self,
            warmup_epochs=epochs(self.warmup_steps, self.warmup_epochs),
            refresh_every=epochs(self.refresh_steps, self.refresh_every),
            cluster_every=epochs(self.cluster_steps, self.cluster_every),
            warmup_steps=None,
            refresh_steps=None,
            cluster_steps=None,
        )

    def check_views(self, views: ViewSpec) -> None:
        """Two of one size and grid, of one photo: their regions and scene points are matched."""
        check(len(views.crops) == 2, "views.crops", len(views.crops), "two")
        for number, crop in enumerate(views.crops):
            check(crop.photo == "own", f"views.crops.{number}.photo", crop.photo, "'own'")
            check(crop.size in (0, views.size), f"views.crops.{number}.size", crop.size, f"0 or {views.size}")
            check(crop.grid in (0, views.grid), f"views.crops.{number}.grid", crop.grid, f"0 or {views.grid}")

    def plan(self, epoch: int) -> EpochPlan:
        """Section 3.4: warm-up, bootstrapping at epoch W and at multiples of N beyond it, loss 2 every M epochs."""
        if epoch < self.warmup_epochs:
            return EpochPlan(epoch, (), {"cluster": 1.0}, "warm-up")
        due = epoch == self.warmup_epochs or (self.refresh_every > 0 and epoch % self.refresh_every == 0)
        losses = {"contrast": 1.0}
        if self.cluster_every > 0 and epoch % self.cluster_every == 0 and self.cluster_weight > 0:
            losses["cluster"] = self.cluster_weight
        return EpochPlan(epoch, ("masks",) if due else (), losses, rides=("labels",))

    def default_optimizer(self) -> OptimizerConfig:
        """LARS as in Section 4.1."""
        return OptimizerConfig()

    @property
    def layers(self) -> tuple[str, ...]:
        """Those of both losses."""
        return tuple(dict.fromkeys((*self.fused_layers, *self.clustered_layers)))

    @property
    def batch_unit(self) -> int:
        """Slices of loss 2 are whole."""
        return self.slice_size

    @property
    def artefacts(self) -> tuple[str, ...]:
        """Loss 1 contrasts the regions of masks."""
        return ("masks",)

    @property
    def bootstrapping(self) -> Bootstrapping:
        """Section 3.3: by the layers and the range of K of loss 2."""
        return Bootstrapping(self.clusters, self.kmeans_iterations, self.clustered_layers)

    def most_expensive(self, *, quick: bool = False) -> CyborgsConfig:
        """The largest K always; memory does not grow with iterations."""
        iterations = 1 if quick else self.kmeans_iterations
        return replace(self, clusters=(self.clusters[1],) * 2, kmeans_iterations=iterations)

    def typical(self) -> CyborgsConfig:
        """The mean K always: the time of k-means grows with K about linearly."""
        return replace(self, clusters=(self._mean_clusters,) * 2)

    @property
    def _mean_clusters(self) -> int:
        return round(sum(self.clusters) / 2)

    def figures(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """``contrast/matched_share``: of a view's regions, how many the other view holds too."""
        regions = numbers.get("contrast/regions", 0.0)
        return {"contrast/matched_share": numbers["contrast/matched"] * self.regions / regions} if regions > 0 else {}

    def forecast_notes(self) -> Iterator[tuple[str, str, str]]:
        """K, where it is drawn."""
        low, high = self.clusters
        if low < high:
            note = f"the mean of its range {low} to {high}, for times; {high} for memory"
            yield "K", f"{self._mean_clusters}", note

    def advice(self, facts: RunFacts) -> Iterator[str]:
        """On warm-up, refreshes and slots for regions."""
        resolved = self.resolved(facts.steps_per_epoch)
        yield from resolved._advice_on_schedule(facts, in_epochs=self.refresh_steps is None)
        cells, most = facts.views.grid**2, facts.mask_regions
        if min(most, cells) < self.regions:
            grid = f"views.grid {facts.views.grid} has {cells} cells"
            why = grid if cells <= most else f"the masks have {most} regions"
            yield (
                f"At most {min(most, cells)} of the {self.regions} slots for regions can be filled, since {why}. "
                "Lower --method.regions, or raise what limits them."
            )

    def _advice_on_schedule(self, facts: RunFacts, *, in_epochs: bool) -> Iterator[str]:
        steps, optimizer = facts.steps_per_epoch, facts.optimizer
        warmup = self.warmup_epochs * steps
        if self.warmup_epochs >= facts.epochs:
            yield (
                f"All {facts.epochs} epochs are warm-up (method.warmup_epochs {self.warmup_epochs}): "
                "no masks are made and the contrastive loss is never used. Raise --epochs or lower --method.warmup-epochs."
            )
            return
        rising = warmup_steps(optimizer, steps, facts.epochs)
        if 0 < warmup <= rising:
            rates = [
                learning_rate(optimizer, step, steps, facts.epochs, facts.batch_size)
                for step in range(min(warmup, 100_000))
            ]
            peak = optimizer.lr * facts.batch_size / optimizer.lr_batch
            if sum(rates) / peak < FEW_STEPS:
                yield (
                    f"The warm-up of {warmup} steps lies inside the learning rate's own warm-up of {rising:.0f} steps: it "
                    f"learns as much as {sum(rates) / peak:.0f} steps at the full rate, and the first masks come from a "
                    "network that has seen next to no training. Raise --method.warmup-epochs (or --method.warmup-steps), or "
                    "lower --optimizer.warmup-epochs (or --optimizer.warmup-fraction)."
                )
        if facts.masks != "bootstrap":
            return
        between = self.refresh_every * steps
        if self.refresh_every == 0 or not any(
            self.plan(e).refresh for e in range(self.warmup_epochs + 1, facts.epochs)
        ):
            yield (
                f"Masks are made once, at epoch {self.warmup_epochs}, and never again in {facts.epochs} epochs: "
                "they stay those of the warm-up. Lower --method.refresh-every or give --method.refresh-steps."
            )
        elif in_epochs and between < PAPER_REFRESH / 20:
            yield (
                f"Masks are refreshed after {between:,} steps; in the paper after {PAPER_REFRESH:,}. "
                "If that is too soon, give --method.refresh-steps or raise --method.refresh-every."
            )


SETTINGS = CyborgsConfig
