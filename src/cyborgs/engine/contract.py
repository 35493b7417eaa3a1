"""What the trainer asks of others, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from cyborgs.errors import UserError
from cyborgs.structures import EpochPlan, StepOutput

ADVICE = "Start a new run with another --out, and a lower --optimizer.lr or a longer warm-up."


class Stopped(Exception):
    """The run was asked to stop.

    Args:
        signal: by which signal; 0: by code.
        step: of the checkpoint that it wrote; None: it had not begun to train, and wrote none.
    """

    def __init__(self, signal: int = 0, step: int | None = None) -> None:
        super().__init__(signal, step)
        self.signal = signal
        self.step = step


class LossError(UserError):
    """A loss is not finite."""


def memory_ran_out(step: int, error: BaseException) -> UserError:
    """What a user is told whose step did not fit; only this process may have it."""
    short = UserError(
        f"memory ran out at step {step}: {error}. "
        "Start a new run with another --out and --micro-batch auto, or a smaller --views.size."
    )
    short.reports_itself = True
    return short


class Trainable(Protocol):
    """What is trained: an ``nn.Module`` whose forward pass is a training step."""

    def plan(self, epoch: int) -> EpochPlan:
        """What the epoch does."""

    def after_step(self, progress: float) -> None:
        """Called once after each optimiser step."""


class JointTrainable(Trainable, Protocol):
    """A trainable with losses that span a global batch, whose forward pass does the other parts of ``StepWork`` too.

    ``embed``: (online, fixed), two sequences of tensors with images along the first axis. ``rest``: (online, losses,
    metrics), with gradient.
    """

    joint: frozenset[str]
    """Names of these losses."""

    def joint_losses(
        self, online: Sequence[Tensor], fixed: Sequence[Tensor], plan: EpochPlan, *, measure: bool = False
    ) -> StepOutput:
        """The joint losses of all micro-batches' embeddings."""


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

    def indices(self, epoch: int, step: int) -> Iterable[int]:
        """Numbers of the images of this process in a step of an epoch: for the report of a failure."""
