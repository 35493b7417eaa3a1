"""Settings of BYOL. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cyborgs.methods.settings import WIDEST, MethodConfig, check
from cyborgs.structures import EpochPlan
from cyborgs.views.config import ViewSpec


@dataclass(frozen=True)
class ByolConfig(MethodConfig):
    """BYOL: the prediction of one view's embedding from the other's, no negatives, no masks."""

    hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    embedding: int = 256
    """Width of the embeddings."""
    layer: str = ""
    """Layer whose mean is embedded; empty: the network's last map."""
    momentum: float = 0.99
    """Momentum of the target network at the first step."""
    momentum_schedule: Literal["constant", "cosine"] = "cosine"
    """constant, or a half cosine that ends at 1."""

    def __post_init__(self) -> None:
        for name in ("hidden", "embedding"):
            check(0 < getattr(self, name) <= WIDEST, f"method.{name}", getattr(self, name), f"1 to {WIDEST}")
        check(0 <= self.momentum <= 1, "method.momentum", self.momentum, "a number from 0 to 1")

    def check_views(self, views: ViewSpec) -> None:
        """Two, each other's target."""
        check(len(views.crops) == 2, "views.crops", len(views.crops), "two")

    def plan(self, epoch: int) -> EpochPlan:
        """Every epoch alike."""
        return EpochPlan(epoch, (), {"byol": 1.0})

    @property
    def layers(self) -> tuple[str, ...]:
        """The one that is embedded, where it is named."""
        return (self.layer,) if self.layer else ()


SETTINGS = ByolConfig
