"""What the trainer asks of others, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch

from cyborgs.errors import UserError
from cyborgs.structures import EpochPlan

ADVICE = "Start a new run with another --out, and a lower --optimizer.lr or a longer warm-up."


class Stopped(Exception):
    """The run was asked to stop and has written a checkpoint. ``signal``: by which signal; 0: by code."""

    def __init__(self, signal: int = 0) -> None:
        super().__init__(signal)
        self.signal = signal


class LossError(UserError):
    """A loss is not finite."""


class Trainable(Protocol):
    """What is trained: an ``nn.Module`` whose forward pass is a training step."""

    def plan(self, epoch: int) -> EpochPlan:
        """What the epoch does."""

    def after_step(self, progress: float) -> None:
        """Called once after each optimiser step."""


class MicroBatch(Protocol):
    """A batch is opaque: it can be counted and moved."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device, non_blocking: bool = False) -> Any:
        """The same batch on another device."""


Refresher = Callable[[int, Callable[[int, int], None], Callable[[], bool]], bool | None]
"""(cycle, progress, stopped) -> whether it was finished; None: nothing had to be made."""


class BatchSource(Protocol):
    """Where batches come from."""

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[Sequence[MicroBatch]]:
        """The micro-batches of each step of the epoch, from ``first_step`` on."""
