"""``cyborgs compare`` and ``cyborgs curve`` put together: data, backbones, cells, tables, files."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing import compare_files, curve
from cyborgs.evaluation.comparing.cells import Cell
from cyborgs.evaluation.comparing.compare import Compared, compare, sentence
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.photos.colour_order import colour_doubt
from cyborgs.evaluation.protocols import protocol as protocol_module
from cyborgs.evaluation.protocols.catalogue import Preset, Settings
from cyborgs.evaluation.protocols.guess import guess_protocol
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.named import open_named
from cyborgs.runs import recipe_file

CELLS = "cells"
"""Folder of finished cells below ``out``: the same command goes on."""
FEATURES = "features"
"""Folder of frozen features below ``out``."""


def photos_of_run(name: str) -> int | None:
    """How many photos a run was pretrained on; None: ``name`` is no run's folder."""
    listed = Path(name) / "images.csv"
    if not listed.is_file():
        return None
    with open(listed, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return max(0, sum(1 for _ in csv.reader(file)) - 1)


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


def compare_backbones(
    data: str | Path,
    backbones: Sequence[str | Path],
    *,
    out: str | Path = "compare",
    protocol: str = "",
    preset: Preset = "small",
    settings: Settings | None = None,
    seeds: int = 1,
    shares: Sequence[float] = (100.0,),
    draws: int = 1000,
    device: str = "cpu",
    workers: int = 0,
) -> Compared:
    """Judge several backbones on one's own labels: a table, a picture, a sentence; ``compare.{json,md,png}`` in ``out``.

    A second start with the same arguments reads what is finished from ``out/cells`` and goes on.

    Args:
        data: labelled photos, as the protocol reads them.
        backbones: names as ``models.named`` takes them; the first is compared with each of the others.
        out: folder for the files, finished cells and frozen features.
        protocol: name; empty: ``guess_protocol``.
        preset: of the settings.
        settings: in place of the preset's.
        seeds: how many: 0 to ``seeds - 1``.
        shares: of the training labels, in percent.
        draws: of the test images, for intervals.
        device: where networks run.
        workers: loader processes.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    labelled, names, out = str(data), [str(one) for one in backbones], Path(out)
    if seeds < 1:
        raise UserError(f"--seeds: need at least 1, got {seeds}.")
    if not shares or not all(0 < s <= 100 for s in shares):
        raise UserError(f"--shares: need shares of the labels in percent, above 0 to 100, got {list(shares)}.")
    name = protocol or guess_protocol(labelled)
    entry = protocol_module.entry(name)
    settings = settings or protocol_module.settings_of(name, preset)
    opened = protocol_module.module(name).open_data(labelled, settings, 0, entry.data_set)
    if not names:
        raise UserError("--backbones: need at least one.")
    opener = Opener(names, device)
    doubts = {one: colour_doubt(opener(one, 0), opened) for one in names if not one.startswith("random")}
    standing = protocol_module.standing(name, preset, settings, opened.counts, min(shares) / 100)
    if standing:
        print(standing)

    def told(backbone: str, share: float, seed: int, cell: Cell) -> None:
        how = "found" if cell.found else f"{cell.seconds:.1f} s"
        line = f"{backbone}, {share:.0%} of the labels, seed {seed}: {100 * cell.value:.1f} {cell.metric} ({how})"
        print(printable(line), file=sys.stderr, flush=True)

    found = compare(
        name,
        names,
        opener,
        opened,
        settings,
        Context(device=device, workers=workers, cache=out / FEATURES, memory={}, out=out / "training"),
        seeds=range(seeds),
        shares=[s / 100 for s in shares],
        draws=draws,
        store=out / CELLS,
        told=told,
    )
    photos = photos_of_run(names[0])
    said = sentence(found, None if photos is None else f"pretraining on your {photos:,} photos")
    counts = ", ".join(f"{n:,} {what}" for what, n in found.counts.items())
    facts = f"{name}, preset {preset}, {seeds} seed{'s' if seeds > 1 else ''}; {counts}. Intervals: 95% over test images{' and seeds' if seeds > 1 else ''}."
    about = {
        "preset": preset,
        "standing": standing,
        "settings": asdict(settings),
        "settings_are_published": protocol_module.is_published(name, settings, opened.counts, min(shares) / 100),
        "settings_from": entry.source or "ours",
        "data": printable(labelled),
        "draws": draws,
        "colours": {printable(one): doubt for one, doubt in doubts.items()},
        "versions": recipe_file.environment(),
    }
    compare_files.write(found, said, settings, about, facts, out)
    _table(compare_files.rows(found), facts)
    for warning in [*found.warnings, *(f"{one}: {doubt}" for one, doubt in doubts.items() if doubt)]:
        print(printable(f"Note: {warning}"))
    print(printable(said))
    print(printable(f"Written: {out} (compare.json, compare.md, compare.png)"))
    return found


def curve_of_run(
    run: str | Path,
    *,
    data: Sequence[str | Path],
    protocols: Sequence[str] = ("coco-stuff", "coco-stuff-probe"),
    out: str | Path | None = None,
    preset: Preset = "small",
    seeds: int = 1,
    draws: int = 1000,
    device: str = "cpu",
    workers: int = 0,
) -> list[curve.Point]:
    """Figure 5b: all kept checkpoints of a run through protocols; ``curve.{json,png}`` in ``out``.

    Args:
        run: its folder, with ``snapshots/``.
        data: labelled photos: one place for all protocols, or one for each.
        protocols: their names.
        out: folder for the files, finished cells and frozen features; None: ``curve`` in the run's.
        preset: of the settings.
        seeds: how many.
        draws: of the test images, for intervals.
        device: where networks run.
        workers: loader processes.

    Raises:
        UserError: no run, no checkpoints kept, or the input is at fault.
    """
    if seeds < 1:
        raise UserError(f"--seeds: need at least 1, got {seeds}.")
    run = Path(run)
    out = run / "curve" if out is None else Path(out)
    places = [str(place) for place in data]
    if len(places) == 1:
        places *= len(protocols)
    if len(places) != len(protocols) or not protocols:
        raise UserError(f"--data: need one place, or one for each of {len(protocols)} protocols, got {len(places)}.")
    twice = next((name for name in protocols if list(protocols).count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--protocols: {twice} is there twice. Give it once for each --out.")
    place_of = dict(zip(protocols, places, strict=True))
    curve.snapshots_of(run)
    opened = {}
    for name, place in place_of.items():
        entry = protocol_module.entry(name)
        settings = protocol_module.settings_of(name, preset)
        opened[name] = (protocol_module.module(name).open_data(place, settings, 0, entry.data_set), settings)
    standings = {n: protocol_module.standing(n, preset, s, d.counts) for n, (d, s) in opened.items()}
    for standing in filter(None, standings.values()):
        print(standing)

    def told(point: curve.Point) -> None:
        values = ", ".join(f"{100 * c.value:.1f}" for c in point.cells)
        print(f"epoch {point.epoch}, {point.protocol}: {values} {point.cells[0].metric}", file=sys.stderr, flush=True)

    points = curve.measure_curve(
        run,
        opened,
        Context(device=device, workers=workers, cache=out / FEATURES, memory={}, out=out / "training"),
        seeds=range(seeds),
        draws=draws,
        store=out / CELLS,
        open_file=_on(device),
        told=told,
    )
    about: dict[str, Any] = {
        "run": printable(str(run)),
        "preset": preset,
        "protocols": {
            name: {
                "data": printable(place),
                "counts": dict(opened[name][0].counts),
                "standing": standings[name],
                "settings": asdict(opened[name][1]),
            }
            for name, place in place_of.items()
        },
        "seeds": list(range(seeds)),
        "draws": draws,
        "versions": recipe_file.environment(),
    }
    curve.write(points, about, f"{run.name or run.resolve().name}: checkpoints", out)
    _table(curve.rows(points), f"{run}, preset {preset}. Intervals: 95% over test images.")
    print(printable(f"Written: {out} (curve.json, curve.png)"))
    return points


def _on(device: str) -> Callable[[Path], Backbone]:
    from cyborgs.models.weights import load_backbone

    return lambda file: load_backbone(file).to(device).eval()


def _table(rows: Sequence[Sequence[str]], caption: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    head, *body = rows
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(head):
        table.add_column(Text(title), justify="left" if place < 2 else "right")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    console.print(Text(printable(caption)))
