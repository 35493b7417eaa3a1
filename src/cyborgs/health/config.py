"""What is done about each sickness of a run. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Action = Literal["warn", "stop", "ignore"]
"""Say it, say it and stop after a checkpoint, or say nothing. The figures are in metrics.jsonl whatever is chosen."""


@dataclass(frozen=True)
class HealthConfig:
    """Sicknesses (warn: say it; stop: write a checkpoint and end the run; ignore), and when they begin."""

    not_finite: Action = "stop"
    """A loss or gradient is NaN or infinite. Weights that are not finite are never saved, whatever this says."""
    collapsed_embeddings: Action = "warn"
    """Embeddings of all regions (images) are nearly the same, or lie on a line."""
    collapsed_masks: Action = "warn"
    """Bootstrapped masks hold hardly any regions."""
    unstable_masks: Action = "warn"
    """A generation of bootstrapped masks has nothing to do with the one before it."""
    dead_batchnorm: Action = "warn"
    """Many channels of BatchNorm say nothing any more."""
    vanishing_gradients: Action = "warn"
    """The gradient is next to nothing, or fell far below what it was."""
    exploding_gradients: Action = "warn"
    """The gradient rose far above what it was."""
    learning_rate: Action = "warn"
    """A step changes the weights by far too much or too little."""
    starved_loader: Action = "warn"
    """Much of the time is spent waiting for photos."""
    few_regions: Action = "warn"
    """Views hold too few regions to tell apart."""
    few_matches: Action = "warn"
    """Few regions are found in the other view."""
    stalled_clustering: Action = "warn"
    """Loss 2 over log K does not fall, or is as high as for pixels that are all alike."""
    collapsed_features: Action = "warn"
    """Nothing is left of the clustered features but their K prototypes: their effective rank is near K."""
    giant_cluster: Action = "warn"
    """One cluster holds nearly all pixels."""

    patience: int = 3
    """Logged steps in a row that a sickness must show before it is said, and be gone before it is over."""
    min_deviation: float = 0.1
    """Embeddings: smallest standard deviation that is healthy (1: spread evenly, 0: all the same)."""
    min_rank: float = 1.5
    """Embeddings: smallest effective rank that is healthy; a tenth of the highest of the run is too little as well."""
    max_one_label_share: float = 0.5
    """Masks: largest share of images with one region that is healthy."""
    min_stability: float = 0.02
    """Masks: smallest adjusted Rand index with the generation before that is healthy (0: chance)."""
    max_dead_share: float = 0.2
    """BatchNorm: largest share of dead channels that is healthy."""
    gradient_factor: float = 100.0
    """Gradients: how far from its running median the norm may be, either way."""
    update_ratio: tuple[float, float] = (1e-6, 0.1)
    """Learning rate: norm of a step over norm of the weights, smallest (near the peak rate) and largest."""
    max_waiting: float = 0.5
    """Loader: largest share of the time spent waiting."""
    min_regions: float = 1.5
    """Regions: smallest mean number of regions in a view."""
    min_matched: float = 0.2
    """Regions: smallest share of them that the other view holds too."""
    max_cluster_share: float = 0.95
    """Clusters: largest share of the pixels that one may hold."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, str) and value not in ("warn", "stop", "ignore"):
                raise ValueError(f"health.{field.name}: need warn, stop or ignore, got {value!r}")
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"health.{field.name}: need a number of at least 0, got {value}")
        if self.patience < 1:
            raise ValueError(f"health.patience: need at least 1, got {self.patience}")
        if self.gradient_factor <= 1:
            raise ValueError(f"health.gradient_factor: need a number above 1, got {self.gradient_factor}")
        low, high = self.update_ratio
        if not 0 <= low < high:
            raise ValueError(f"health.update_ratio: need 0 <= smallest < largest, got {self.update_ratio}")
