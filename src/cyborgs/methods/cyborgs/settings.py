"""Settings of CYBORGS and its schedule. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cyborgs.methods.settings import WIDEST, MethodConfig, check, epochs_from_steps
from cyborgs.structures import EpochPlan


@dataclass(frozen=True)
class CyborgsConfig(MethodConfig):
    """CYBORGS (Sections 3.2 to 3.4 and 4.1 of the paper)."""

    has_negatives = True

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

    def plan(self, epoch: int) -> EpochPlan:
        """Section 3.4: warm-up, bootstrapping at epoch W and at multiples of N beyond it, loss 2 every M epochs."""
        if epoch < self.warmup_epochs:
            return EpochPlan(epoch, (), {"cluster": 1.0}, "warm-up")
        due = epoch == self.warmup_epochs or (self.refresh_every > 0 and epoch % self.refresh_every == 0)
        losses = {"contrast": 1.0}
        if self.cluster_every > 0 and epoch % self.cluster_every == 0 and self.cluster_weight > 0:
            losses["cluster"] = self.cluster_weight
        return EpochPlan(epoch, ("masks",) if due else (), losses, rides=("labels",))
