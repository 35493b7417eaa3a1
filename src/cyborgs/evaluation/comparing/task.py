"""A protocol with its settings and its data, opened, and the one way in which backbones go through it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing.cells import Cell
from cyborgs.evaluation.comparing.compare import Compared, Open, compare
from cyborgs.evaluation.contract import Context, Data
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import Entry, Preset, Settings
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.named import open_named
from cyborgs.runs.processes import launched

CELLS: Final = "cells"
"""Folder of finished cells below ``out``: the same command goes on."""
FEATURES: Final = "features"
"""Folder of frozen features below ``out``."""


@dataclass(frozen=True)
class Task:
    """What all backbones that are compared have in common."""

    protocol: str
    preset: Preset
    settings: Settings
    place: str
    """Where the labelled photos lie."""
    data: Data

    @property
    def entry(self) -> Entry:
        """Of the catalogue."""
        return protocols.entry(self.protocol)

    def standing(self, share: float = 1.0) -> str:
        """``protocols.standing`` of a share of the labels."""
        return protocols.standing(self.protocol, self.preset, self.settings, self.data.counts, share)

    def about(self, share: float = 1.0) -> dict[str, Any]:
        """What files say of it; ``share``: the smallest one of the labels."""
        return {
            "preset": self.preset,
            "standing": self.standing(share),
            "settings": asdict(self.settings),
            "settings_are_published": protocols.is_published(self.protocol, self.settings, self.data.counts, share),
            "settings_from": self.entry.source or "ours",
            "data": printable(self.place),
        }


def open_task(protocol: str, data: str, preset: Preset, settings: Settings | None = None, seed: int = 0) -> Task:
    """Open the data of a protocol, before any network runs; ``settings``: in place of the preset's.

    Raises:
        UserError: several processes, no such protocol, or the data are not of its layout, or incomplete.
    """
    if launched() > 1:
        raise UserError("evaluations run in one process. Start this without torchrun.")
    entry = protocols.entry(protocol)
    settings = settings or protocols.settings_of(protocol, preset)
    opened = protocols.module(protocol).open_data(data, settings, seed, entry.data_set)
    return Task(protocol, preset, settings, data, opened)


def measured(
    task: Task,
    backbones: Sequence[str],
    open_backbone: Open,
    *,
    seeds: Sequence[int],
    shares: Sequence[float] = (1.0,),
    draws: int,
    out: Path | None,
    device: str,
    workers: int,
) -> Compared:
    """``compare``, what is finished in ``out`` not measured again; lines on what goes on to stderr, ``standing`` to stdout."""
    standing = task.standing(min(shares))
    if standing:
        print(standing)

    def on_cell(backbone: str, share: float, seed: int, cell: Cell) -> None:
        how = "found" if cell.found else f"{cell.seconds:.1f} s"
        what = f"{task.protocol}: {backbone}, {share:.0%} of the labels, seed {seed}"
        _say(f"{what}: {100 * cell.value:.1f} {cell.metric} ({how})")

    context = Context(
        device=device,
        workers=workers,
        cache=out and out / FEATURES,
        memory={} if len(seeds) * len(shares) > 1 else None,  # one evaluation has nothing to hand on
        out=out and out / "training",
        say=_say,
    )
    return compare(
        *(task.protocol, backbones, open_backbone, task.data, task.settings, context),
        seeds=seeds,
        shares=shares,
        draws=draws,
        store=out and out / CELLS,
        on_cell=on_cell,
    )


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


class Opener:
    """Opens backbones by name; ``random`` alone is the architecture of the first that is not.

    Args:
        names: of all backbones; each is opened once, so that a mistake shows before any work.
        device: where they go.

    Raises:
        UserError: one cannot be opened.
    """

    def __init__(self, names: Sequence[str], device: str) -> None:
        self._device = device
        self._like: BackboneConfig | None = None
        self._opened: dict[str, Backbone] = {}
        for name in sorted(names, key=lambda n: n == "random"):
            backbone = self(name, 0)
            if self._like is None and name != "random":
                self._like = backbone.config
            if not name.startswith("random"):
                self._opened[name] = backbone

    def __call__(self, name: str, seed: int) -> Backbone:
        """The backbone, in eval mode on the device; random weights are those of the seed."""
        if name in self._opened:
            return self._opened[name]
        backbone = open_named(name, seed=seed, like=self._like).backbone
        wrong = next((n for n, v in backbone.weights().items() if not bool(torch.isfinite(v.float()).all())), None)
        if wrong is not None:
            raise UserError(f"{name}: the weights hold NaN or infinity, in {wrong}: the training went wrong there.")
        return backbone.to(self._device).eval()
