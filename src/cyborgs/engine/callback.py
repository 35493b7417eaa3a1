"""What may look on while a run goes: monitors, guards, snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from cyborgs.engine.clock import Clock
from cyborgs.engine.log import RunLog, Speed
from cyborgs.structures import EpochPlan, StepWork


@dataclass
class Progress:
    """How far a run is; all of it goes into the checkpoint."""

    step: int = 0
    """Optimiser steps done."""
    refreshed: int = -1
    """The last epoch whose refreshes are done."""
    cycle: int = 0
    """How many refreshes are done."""


class Training(Protocol):
    """What a callback sees of the trainer."""

    fabric: Fabric
    trainable: nn.Module
    optimizer: Optimizer
    progress: Progress
    epochs: int
    steps_per_epoch: int
    log: RunLog
    log_every: int
    speed: Speed
    clock: Clock
    times: dict[str, float]
    """The clock readings of the last logged step."""

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""

    def save(self) -> None:
        """Write a checkpoint."""

    def stop(self) -> None:
        """Finish the step, write a checkpoint, leave."""

    def leave(self, signal: int = 0) -> None:
        """Write a checkpoint and raise Stopped at once."""


class Callback:
    """Called by the trainer, on all processes alike; every method does nothing unless a callback says otherwise.

    A callback never draws from torch's or numpy's global generators: a run is the same with it and without.
    """

    name: str = ""
    """Key of its state in the checkpoint; empty: it has none."""
    allows_not_finite: bool = False
    """Whether the trainer goes on where a logged loss is NaN or infinite."""

    def on_epoch(self, trainer: Training, plan: EpochPlan) -> None:
        """Before anything of an epoch, refreshes included."""

    def on_refresh(self, trainer: Training, name: str, done: int, total: int) -> None:
        """While something is made anew."""

    def on_refreshed(self, trainer: Training, name: str) -> Mapping[str, float]:
        """After something was made anew: figures for its line of the log."""
        return {}

    def on_gradients(
        self,
        trainer: Training,
        plan: EpochPlan,
        works: Callable[[], list[StepWork]],
        values: Mapping[str, Tensor],
        logged: bool,
    ) -> None:
        """At every step, before the update: what gives its micro-batches, its losses and figures, all on the device still.

        Where ``logged`` is False nothing may be asked of a GPU: reading a number waits for it.
        """

    def measure(self, trainer: Training, plan: EpochPlan, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """At a logged step, which ``numbers`` describe, before its line is written: further figures for that line."""
        return {}

    def on_log(self, trainer: Training, plan: EpochPlan, numbers: Mapping[str, float]) -> None:
        """After the line of a logged step, its clock readings left out, was written."""

    def on_step(self, trainer: Training) -> None:
        """After a step; ``trainer.progress.step`` counts it already."""

    def on_end(self, trainer: Training) -> None:
        """After the last step."""

    def state_dict(self) -> dict[str, Any]:
        """What it must know to go on after a resume, as JSON holds it."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
