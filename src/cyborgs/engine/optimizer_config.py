"""Settings of optimiser and learning rate. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser and learning rate."""

    kind: Literal["lars", "sgd", "adamw"] = "lars"
    """LARS, SGD with momentum, or AdamW."""
    lr: float = 0.1
    """Peak learning rate at a global batch of lr_batch; scaled linearly with the global batch."""
    lr_batch: int = 64
    """The global batch that lr is meant for."""
    momentum: float = 0.9
    """Momentum of LARS and SGD."""
    momentum_end: float | None = None
    """Where momentum (AdamW: the first of betas) ends, by half a cosine over the run; none: it is constant."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's two averages."""
    eps: float = 1e-8
    """Added to AdamW's denominator."""
    weight_decay: float = 1.5e-6
    """Weight decay; which parameters have none: `decay_vectors` and `exclude`."""
    weight_decay_end: float | None = None
    """Where the weight decay ends, by half a cosine over the run; none: it is constant."""
    decay_vectors: bool = False
    """Decay biases and the parameters of norms too, and let LARS adapt their rate."""
    exclude: tuple[str, ...] = ()
    """Further parameters without decay and without LARS's adaptation: patterns of their names (*.position)."""
    layer_decay: float = 1.0
    """Rate of a part of the backbone over that of the part after it; heads have the full rate. A part is a block
    (layer3.1, blocks.7), or what stands right below the backbone where that has no numbered blocks."""
    clip: float = 0.0
    """Largest norm of the whole gradient, a larger one is scaled down to it; 0: any."""
    trust: float = 0.001
    """LARS's trust coefficient."""
    warmup_epochs: float = 10.0
    """Epochs of linear warm-up."""
    warmup_fraction: float = 0.0
    """Linear warm-up as a share of all steps; replaces warmup_epochs where it is above 0."""
    warmup_start: float = 0.01
    """The rate at step 0 over the peak rate."""
    schedule: Literal["step", "cosine"] = "step"
    """After the warm-up: x0.1 at the milestones, or a half cosine to 0."""
    milestones: tuple[float, ...] = (0.96, 0.98)
    """Shares of all epochs at which the rate falls to a tenth."""

    def __post_init__(self) -> None:
        for name in ("lr", "lr_batch", "trust"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"optimizer.{name}: need a positive number, got {getattr(self, name)}")
        for name in ("weight_decay", "warmup_epochs"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"optimizer.{name}: need a number of at least 0, got {getattr(self, name)}")
        for name in ("momentum", "momentum_end"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"optimizer.{name}: need 0 to below 1, got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas: need two numbers from 0 to below 1, got {self.betas}")
        for name in ("weight_decay_end", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ValueError(f"optimizer.{name}: need a number of at least 0, got {value}")
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"optimizer.eps: need a positive number, got {self.eps}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"optimizer.layer_decay: need above 0 to 1, got {self.layer_decay}")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"optimizer.warmup_fraction: need 0 to below 1, got {self.warmup_fraction}")
        if not 0 < self.warmup_start <= 1:
            raise ValueError(f"optimizer.warmup_start: need above 0 to 1, got {self.warmup_start}")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m <= 1 for m in self.milestones):
            raise ValueError(f"optimizer.milestones: need rising shares from 0 to 1, got {self.milestones}")
