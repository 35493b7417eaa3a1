"""How a network is trained with labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


def positive(settings: object, *names: str, where: str = "") -> None:
    """Raise ValueError, which names the field, unless each is a finite number above 0, or holds such alone."""
    for name in names:
        value = getattr(settings, name)
        if not all(0 < one < float("inf") for one in (value if isinstance(value, tuple) else (value,))):
            raise ValueError(f"{where}{name}: need positive numbers, got {value}")


def within(settings: object, ranges: Mapping[str, tuple[float, float]], where: str = "") -> None:
    """Raise ValueError, which names the field, unless each is finite and in its range, ends included."""
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not (low <= value <= high and value < float("inf")):
            need = f"at least {low}" if high == float("inf") else f"{low} to {high}"
            raise ValueError(f"{where}{name}: need {need}, got {value}")


def at_least(low: float, *names: str) -> dict[str, tuple[float, float]]:
    """Ranges without an upper end."""
    return dict.fromkeys(names, (low, float("inf")))


@dataclass(frozen=True)
class FineTuneConfig:
    """SGD on all weights, or on the head's alone."""

    epochs: int = 20
    """Passes over the training images, each of as many steps as come nearest; not used where iterations is above 0."""
    iterations: int = 0
    """Steps in all, in place of epochs; all of batch_size images."""
    batch_size: int = 256
    """Images in a step; where epochs count, all of them where there are fewer (a single one twice), at the same rate."""
    lr: float = 0.01
    """Rate of the backbone's weights."""
    head_lr_factor: float = 1.0
    """Rate of the head's weights over that of the backbone's."""
    momentum: float = 0.9
    """Momentum."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
    schedule: Literal["step", "poly", "cosine"] = "step"
    """x gamma at the milestones, (lr - min_lr) (1 - t)^0.9 + min_lr, or half a cosine to 0."""
    milestones: tuple[float, ...] = (0.6, 0.8)
    """Shares of all steps at which the rate is multiplied by gamma."""
    gamma: float = 0.2
    """Factor at a milestone."""
    min_lr: float = 0.0
    """Rate of the backbone's weights at the end (poly); the head's ends at head_lr_factor times it."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the network."""
    checkpoint_every: int = 500
    """Steps between checkpoints, from which the same command goes on."""

    def __post_init__(self) -> None:
        positive(self, "lr", "head_lr_factor", "gamma", where="training.")
        least = at_least(0, "momentum", "weight_decay", "min_lr") | at_least(1, "batch_size", "checkpoint_every")
        within(self, least, "training.")
        if self.iterations < 0 or self.epochs < (0 if self.iterations else 1):
            raise ValueError(f"training.epochs: need at least 1 (or training.iterations), got {self.epochs}")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m <= 1 for m in self.milestones):
            raise ValueError(f"training.milestones: need rising shares from 0 to 1, got {self.milestones}")
