"""Settings of VICReg. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.methods.settings import MethodConfig, check
from cyborgs.structures import EpochPlan


@dataclass(frozen=True)
class VicregConfig(MethodConfig):
    """VICReg: invariance between views; variance and covariance over the images of a batch."""

    has_negatives = True

    layer: str = "layer4"
    """Layer whose mean is embedded."""
    hidden: int = 8192
    """Width of the expander's layers, and of the embeddings."""
    invariance: float = 25.0
    """Weight of the squared distance between both views' embeddings."""
    variance: float = 25.0
    """Weight of the hinge that keeps each dimension's standard deviation at 1."""
    covariance: float = 1.0
    """Weight of the squared covariances of different dimensions."""

    def __post_init__(self) -> None:
        check(self.hidden > 0, "method.hidden", self.hidden, "a positive whole number")

    @property
    def layers(self) -> tuple[str, ...]:
        """The one that is embedded."""
        return (self.layer,)

    def default_optimizer(self) -> OptimizerConfig:
        """LARS at 0.2 for 256 images, decay 1e-6, warm-up of 10 epochs, a half cosine."""
        return OptimizerConfig(lr=0.2, lr_batch=256, weight_decay=1e-6, schedule="cosine")

    def plan(self, epoch: int) -> EpochPlan:
        """Every epoch alike."""
        return EpochPlan(epoch, (), {"vicreg": 1.0})


SETTINGS = VicregConfig
