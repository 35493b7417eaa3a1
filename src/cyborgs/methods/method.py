"""The contract of a method: what the trainer may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from cyborgs.methods.config import MethodConfig
from cyborgs.models.backbone import Backbone
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed, StepWork


class Method(nn.Module, ABC):
    """A network with its loss. It knows neither optimiser nor disk, and draws by coordinates alone.

    All its state is in ``state_dict``: target networks and queues included. A method is a file of its own
    with one final class; nothing finished is subclassed.
    """

    backbone: Backbone
    """The online network: what the run is for."""
    config: MethodConfig

    def plan(self, epoch: int) -> EpochPlan:
        """What the epoch does: a pure function of the settings."""
        return self.config.plan(epoch)

    @abstractmethod
    def training_step(self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False) -> StepOutput:
        """Losses of one micro-batch, by the names of ``plan.losses``, and figures for the log.

        ``measure``: the step is logged; figures that cost time are computed then alone.
        """

    @abstractmethod
    def after_step(self, progress: float) -> None:
        """Move the target network; called once after each optimiser step with the share of the run done."""

    def forward(self, work: StepWork) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``training_step`` as (losses, metrics), so that a wrapper for several processes sees one forward pass a step."""
        output = self.training_step(work.batch, work.plan, work.seed, measure=work.measure)
        return dict(output.losses), dict(output.metrics)
