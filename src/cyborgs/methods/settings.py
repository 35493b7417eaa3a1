"""What the settings of every method are. No torch here: schedules are pure functions of the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.structures import EpochPlan
from cyborgs.views.config import ViewSpec


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
class Bootstrapping:
    """How masks are made of a network's features (Section 3.3 of the paper): the method's part of it."""

    clusters: tuple[int, int] = (2, 256)
    """Smallest and largest K, drawn for each group of photos."""
    iterations: int = 20
    """Iterations of spherical k-means, at most."""
    layers: tuple[str, ...] = ()
    """Layers whose maps are clustered; empty: the last block at stride 8."""


@dataclass(frozen=True)
class RunFacts:
    """What a method may know of a run when it gives advice."""

    epochs: int
    steps_per_epoch: int
    batch_size: int
    """Images in a step over all processes."""
    optimizer: OptimizerConfig
    views: ViewSpec
    masks: str
    """The source of the masks, as in ``masks.source``."""
    mask_regions: int
    """Regions that a photo's mask can have, at most."""


@dataclass(frozen=True)
class MethodConfig:
    """Base of the methods' settings: all that the rest of the program asks of a method before there is a network.

    What is a property here may be a field of a method's settings, so that it can be chosen.
    """

    has_negatives: ClassVar[bool] = False
    """Whether a loss compares the images of a batch with each other, so that it matters how many there are."""
    batch_unit_field: ClassVar[str] = ""
    """The field that says ``batch_unit``, as the user writes it, for messages."""

    def plan(self, epoch: int) -> EpochPlan:
        """What the epoch does: a pure function."""
        raise TypeError("MethodConfig is a base: use the settings of a method")

    def resolved(self, steps_per_epoch: int) -> Self:
        """The same settings with every number of steps turned into epochs."""
        return self

    def default_views(self) -> ViewSpec:
        """The views that the method was published with."""
        return ViewSpec()

    def default_optimizer(self) -> OptimizerConfig:
        """Optimiser and learning rate where a recipe of its own does not say otherwise."""
        return OptimizerConfig(lr=0.6, warmup_fraction=0.05, schedule="cosine")

    def check_views(self, views: ViewSpec) -> None:
        """Raise ValueError naming the field of ``views`` where the method cannot be trained on them."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers that are named; empty: the last maps of strides 8, 16 and 32."""
        return ()

    @property
    def batch_unit(self) -> int:
        """Images that belong together: a process's share of the batch and a micro-batch are multiples of it."""
        return 1

    @property
    def batchnorm(self) -> str:
        """Whose statistics BatchNorm in the backbone takes (``models/statistics.py``).

        ``sync``: of all processes; ``plain``: of each process's own images; ``split(n)``: of each n-th part of them;
        ``shuffle``: plain, and the method itself deals images anew among the processes.
        """
        return "sync"

    @property
    def artefacts(self) -> tuple[str, ...]:
        """What is made of the photos and needed beside them: ``masks``, or names of prepared artefacts."""
        return ()

    @property
    def bootstrapping(self) -> Bootstrapping | None:
        """How the method's own features become masks; None: it makes none."""
        return None

    def most_expensive(self, *, quick: bool = False) -> Self:
        """The same settings, with what is drawn at random always at what takes the most memory.

        ``quick``: what takes time but no memory may be cut short.
        """
        return self

    def typical(self) -> Self:
        """The same settings, with what is drawn at random always at its mean, for measuring times."""
        return self

    def figures(self, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """More figures of a logged step, from those that it has."""
        return {}

    def advice(self, facts: RunFacts) -> Iterator[str]:
        """Sentences on what does not suit a run, of settings as the user gave them (not resolved)."""
        yield from ()

    def forecast_notes(self) -> Iterator[tuple[str, str, str]]:
        """Rows (name, value, note) for a forecast: what ``typical`` and ``most_expensive`` took."""
        yield from ()
