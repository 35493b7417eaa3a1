"""What the settings of every method are. No torch here: schedules are pure functions of the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cyborgs.structures import EpochPlan


def check(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise ValueError naming the field, what it may be and what it is."""
    if not condition:
        raise ValueError(f"{field}: need {allowed}, got {value!r}")


def epochs_from_steps(steps: int, steps_per_epoch: int) -> int:
    """Whole epochs nearest to a number of steps; 0 stays 0, anything else is at least one epoch."""
    return 0 if steps == 0 else max(1, round(steps / steps_per_epoch))


WIDEST = 65_536
"""Channels of a head's layers, at most: with more, the memory of a number typed wrong is asked for."""


@dataclass(frozen=True)
class MethodConfig:
    """Base of the methods' settings: narrowed to the recipe's method."""

    has_negatives: ClassVar[bool] = False
    """Whether a loss compares the images of a batch with each other, so that it matters how many there are."""

    def plan(self, epoch: int) -> EpochPlan:
        """What the epoch does."""
        raise TypeError("MethodConfig is a base: use the settings of a method")

    def resolved(self, steps_per_epoch: int) -> MethodConfig:
        """The same settings with every number of steps turned into epochs."""
        return self
