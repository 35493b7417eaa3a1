"""Backbones through one protocol, on the same data, seeds and draws: what was measured, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cyborgs.engine.log import moving
from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing.cells import Cell, measure
from cyborgs.evaluation.contract import Context, Data
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import Settings
from cyborgs.metrics.intervals import Interval
from cyborgs.metrics.paired import Difference, difference, few_images, mean_over, span
from cyborgs.models.backbone import Backbone

Open = Callable[[str, int], Backbone]
"""(name as the user gave it, seed of random weights) -> backbone in eval mode."""


@dataclass(frozen=True)
class Compared:
    """Cells of one protocol."""

    protocol: str
    metric: str
    backbones: tuple[str, ...]
    """In the user's order; the first is what the others are compared with."""
    shares: tuple[float, ...]
    """Of the training labels, rising."""
    seeds: tuple[int, ...]
    cells: Mapping[tuple[str, float, int], Cell]
    """By backbone, share and seed."""

    def _of(self, backbone: str, share: float) -> list[Cell]:
        return [self.cells[backbone, share, seed] for seed in self.seeds]

    def value(self, backbone: str, share: float = 1.0) -> Interval:
        """Mean of the seeds' main figures, and its interval over draws of test images and seeds."""
        found = self._of(backbone, share)
        return mean_over([c.value for c in found], [c.draws for c in found], found[0].images)

    def less(self, a: str, b: str, share: float = 1.0) -> Difference:
        """a's main figure less b's, paired by seed and draw."""
        x, y = self._of(a, share), self._of(b, share)
        return difference(
            [c.value for c in x], [c.value for c in y], [c.draws for c in x], [c.draws for c in y], x[0].images
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the cells warn of, each once, with whom it concerns."""
        found: dict[str, set[str]] = {}
        for (backbone, _, _), cell in self.cells.items():
            for warning in cell.warnings:
                found.setdefault(warning, set()).add(backbone)
        every = set(self.backbones)
        few = few_images(self.cells[self.backbones[0], self.shares[-1], self.seeds[0]].images)
        return (*few, *(w if who == every else f"{', '.join(sorted(who))}: {w}" for w, who in found.items()))

    @property
    def counts(self) -> Mapping[str, int]:
        """Of the data with all labels."""
        return self._of(self.backbones[0], self.shares[-1])[0].counts


def compare(
    name: str,
    backbones: Sequence[str],
    open_backbone: Open,
    data: Data,
    settings: Settings,
    context: Context,
    *,
    seeds: Sequence[int] = (0,),
    shares: Sequence[float] = (1.0,),
    draws: int = 1000,
    store: Path | None = None,
    on_cell: Callable[[str, float, int, Cell], None] | None = None,
) -> Compared:
    """Judge each backbone with each seed and share of the labels; finished cells in ``store`` are not measured again.

    Args:
        name: of the protocol.
        backbones: at least one, no two alike.
        open_backbone: gives one; asked anew for each seed only where the name begins with ``random``.
        data: what the protocol's ``open_data`` gave.
        settings: of the protocol.
        context: device, workers, cache, folder; its seed, share and progress are not used.
        seeds: of heads, orders, splits of the labels and random weights: the same for every backbone.
        shares: of the training labels, above 0 to 1.
        draws: of the test images.
        store: folder of finished cells.
        on_cell: called after each, with backbone, share, seed and cell.

    Raises:
        UserError: the input is at fault.
    """
    if not backbones or len(set(backbones)) != len(backbones):
        raise UserError(f"--backbone: need at least one, and none twice, got {', '.join(backbones) or 'none'}.")
    check_shares(shares)
    protocols.entry(name)
    shares, cells = tuple(sorted(set(shares))), {}
    for backbone in backbones:
        network: Backbone | None = None
        for seed in seeds:
            if network is None or backbone.startswith("random"):
                network = open_backbone(backbone, seed)
            for share in shares:
                with moving(f"{name}: {printable(backbone)}") as progress:
                    own = replace(context, seed=seed, share=share, progress=progress)
                    cell = measure(name, network, data, settings, own, draws=draws, store=store)
                cells[backbone, share, seed] = cell
                if on_cell is not None:
                    on_cell(backbone, share, seed, cell)
    return Compared(name, cell.metric, tuple(backbones), shares, tuple(seeds), cells)


def check_shares(shares: Sequence[float]) -> None:
    """Raises UserError unless all are shares of the labels, and there is one."""
    if not shares or not all(0 < share <= 1 for share in shares):
        percent = [100 * share for share in shares]
        raise UserError(f"--shares: need shares of the labels in percent, above 0 to 100, got {percent}.")


def check_seeds(seeds: int) -> None:
    """Raises UserError unless there is one at least."""
    if seeds < 1:
        raise UserError(f"--seeds: need at least 1, got {seeds}.")


METRICS: Mapping[str, str] = {"miou": "mIoU", "map": "mAP", "top1": "top-1 accuracy", "accuracy": "accuracy"}
"""How a sentence calls a main figure."""


def metric_name(metric: str) -> str:
    """The field's name of a main figure."""
    return METRICS.get(metric, metric)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without their folders, where those tell them apart."""
    short = {name: name.rstrip("/").rpartition("/")[2] or name for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def epoch_of(backbone: str) -> int:
    """Of a checkpoint that is called ``epoch 5``, as those of a curve are."""
    return int(backbone.removeprefix("epoch "))


def _points(value: float) -> str:
    return f"{abs(100 * value):.1f}"


def sentence(compared: Compared, subject: str | None = None, share: float | None = None) -> str:
    """What a person wants to know, in one sentence: the first backbone beside the others, with all labels.

    ``subject``: what was done to the first backbone ("pretraining on your 1,200 photos"); None: its name.
    """
    share = compared.shares[-1] if share is None else share
    first, *others = compared.backbones
    subject = subject or first
    what = metric_name(compared.metric)
    if not others:
        own = compared.value(first, share)
        return f"{subject}: {100 * own.value:.1f} {what} ({span(own.low, own.high)})."
    parts = []
    for place, other in enumerate(others):
        d = compared.less(first, other, share)
        name = other
        tail = f"({span(d.low, d.high)})" if np.isfinite(d.low) else "(one test image: no interval)"
        if not d.shows:
            verb = "made no difference that shows" if place == 0 else "no difference that shows"
            parts.append(f"{verb} against {name}: {100 * d.value:+.1f} points {what} {tail}")
            continue
        word = ("gained" if d.value > 0 else "lost") if place == 0 else ("more" if d.value > 0 else "less")
        if place == 0:
            side = "over" if d.value > 0 else "against"
            parts.append(f"{word} {_points(d.value)} points {what} {tail} {side} {name}")
        else:
            parts.append(f"{_points(d.value)} {word} than {name} {tail}")
    text = f"{subject} {', '.join(parts)}."
    return text[0].upper() + text[1:]
