"""The contract of a method: what the trainer may ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from cyborgs.methods.settings import MethodConfig
from cyborgs.models.backbone import Backbone
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed, StepWork


class Method(nn.Module, ABC):
    """A network with its loss. It knows neither optimiser nor disk, and draws by coordinates alone.

    All its state is in ``state_dict``: target networks and queues included. A method is a folder of its own
    with one final class, made as ``METHOD(settings, backbone, views)``; nothing finished is subclassed.
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

    def forward(self, work: StepWork) -> tuple[Any, ...]:
        """``training_step`` as (losses, metrics), so that a wrapper for several processes sees one forward pass a step."""
        output = self.training_step(work.batch, work.plan, work.seed, measure=work.measure)
        return dict(output.losses), dict(output.metrics)


class JointMethod(Method, ABC):
    """A method with losses that compare images of the whole global batch, and can be had from cached embeddings.

    ``training_step`` of a batch is then, for the micro-batches of any division of it: ``embed`` for each, without
    gradient; ``joint_losses`` once, of all embeddings; ``remaining_step`` for each, whose ``online`` embeddings take
    up the gradient of the joint losses. Exact where a network treats each image by itself; BatchNorm does not.
    """

    joint: ClassVar[frozenset[str]]
    """Names of the losses that span the global batch."""

    @abstractmethod
    def embed(self, batch: Batch, plan: EpochPlan) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """What the joint losses need of a micro-batch, images along the first axis: (online, fixed).

        Gradients go through ``online`` alone. Called without gradient, and runs every layer of both networks that the
        step needs: this pass is the one that moves running statistics.
        """

    @abstractmethod
    def joint_losses(
        self, online: Sequence[Tensor], fixed: Sequence[Tensor], plan: EpochPlan, *, measure: bool = False
    ) -> StepOutput:
        """The joint losses of this process's embeddings, and their figures for the log."""

    @abstractmethod
    def remaining_step(
        self, batch: Batch, plan: EpochPlan, seed: StepSeed, *, measure: bool = False
    ) -> tuple[Sequence[Tensor], StepOutput]:
        """``online`` as ``embed`` gave it, with gradient; and the losses of the plan that are not joint."""

    def forward(self, work: StepWork) -> tuple[Any, ...]:
        """``whole``: as every method; ``embed``: (online, fixed); ``rest``: (online, losses, metrics)."""
        if work.part == "embed":
            return self.embed(work.batch, work.plan)
        if work.part == "rest":
            online, output = self.remaining_step(work.batch, work.plan, work.seed, measure=work.measure)
            return online, dict(output.losses), dict(output.metrics)
        return super().forward(work)
