"""``cyborgs evaluate PROTOCOL`` put together: data, backbone, random weights beside it, tables, files."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cyborgs.engine.log import moving
from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing.cells import Cell, chosen, measure, plain
from cyborgs.evaluation.comparing.compare import metric_name
from cyborgs.evaluation.comparing.comparison import CELLS, FEATURES, Opener
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.photos.colour_order import colour_doubt
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import Entry, Preset, Settings
from cyborgs.files import make_folder, write_bytes
from cyborgs.metrics.intervals import Interval
from cyborgs.metrics.paired import Difference, difference, few_images, mean_over, span
from cyborgs.models.weights import weights_hash
from cyborgs.runs import recipe_file
from cyborgs.runs.processes import launched


@dataclass(frozen=True)
class Judgement:
    """A backbone by a protocol, random weights beside it."""

    protocol: str
    preset: Preset
    pretrained: Cell
    random: Cell | None

    @property
    def interval(self) -> Interval:
        """Of the main figure, over draws of the test images."""
        return _interval(self.pretrained)

    @property
    def gain(self) -> Difference | None:
        """Over random weights; None: they were not judged."""
        if self.random is None:
            return None
        a, b = self.pretrained, self.random
        return difference([a.value], [b.value], [a.draws], [b.draws], a.images)


def _interval(cell: Cell) -> Interval:
    return mean_over([cell.value], [cell.draws], cell.images)


def judge(
    name: str,
    backbone: str | Path,
    *,
    data: str | Path,
    settings: Settings | None = None,
    preset: Preset = "paper",
    random_baseline: bool = True,
    share: float = 1.0,
    seed: int = 0,
    draws: int = 1000,
    out: str | Path | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> Judgement:
    """Judge a backbone by a protocol: a table, and ``result.json`` and ``per_class.csv`` in ``out``.

    Args:
        name: of the protocol.
        backbone: as ``models.named`` takes it.
        data: labelled photos, as the protocol reads them; opened before any network runs.
        settings: in place of the preset's.
        preset: which settings those are or started from.
        random_baseline: judge random weights of the same architecture too, with the same seed and settings.
        share: of the training labels, above 0 to 1, stratified, drawn from the seed.
        seed: of heads, orders, drawn splits and random weights.
        draws: of the test images, for intervals.
        out: folder; what is finished or begun there is not done again.
        device: where networks run.
        workers: loader processes.

    Raises:
        UserError: the input is at fault; says what to do.
        Stopped: a training was, once its checkpoint was written.
    """
    backbone, data, out = str(backbone), str(data), None if out is None else Path(out)
    if launched() > 1:
        raise UserError("evaluations run in one process. Start this without torchrun.")
    if not 0 < share <= 1:
        raise UserError(f"--share: need a share of the training labels, above 0 to 1, got {share}.")
    entry = protocols.entry(name)
    settings = settings or protocols.settings_of(name, preset)
    opened = protocols.module(name).open_data(data, settings, seed, entry.data_set)
    beside = random_baseline and not backbone.startswith("random")
    opener = Opener([backbone, "random"] if beside else [backbone], device)
    standing = protocols.standing(name, preset, settings, opened.counts, share)
    if standing:
        print(standing)
    found: dict[str, Cell] = {}
    hashes: dict[str, str] = {}
    doubt = colour_doubt(opener(backbone, seed), opened)
    for who in [backbone, "random"] if beside else [backbone]:
        with moving(f"{name}: {printable(who)}") as progress:
            context = Context(
                seed=seed,
                share=share,
                device=device,
                workers=workers,
                cache=None if out is None else out / FEATURES,
                out=None if out is None else out / "training",
                say=lambda text: print(text, file=sys.stderr, flush=True),
                progress=progress,
            )
            store = None if out is None else out / CELLS
            network = opener(who, seed)
            hashes[who] = weights_hash(network)
            found[who] = measure(name, network, opened, settings, context, draws=draws, store=store)
    if doubt is not None:
        found[backbone] = replace(found[backbone], warnings=(*found[backbone].warnings, doubt))
    judgement = Judgement(name, preset, found[backbone], found.get("random") if beside else None)
    _tell(judgement, backbone, entry, settings)
    if out is not None:
        about = {
            "backbone": printable(backbone),
            "data": printable(data),
            "standing": standing,
            "settings": asdict(settings),
            "settings_are_published": protocols.is_published(name, settings, opened.counts, share),
            "share": share,
            "seed": seed,
            "weights_xxh64": hashes[backbone],
            "versions": recipe_file.environment(),
        }
        _write(judgement, about, entry, settings, out)
        print(printable(f"Written: {out} (result.json, per_class.csv)"))
    return judgement


def _tell(judgement: Judgement, backbone: str, entry: Entry, settings: Settings) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    cells = {backbone: judgement.pretrained} | ({"random": judgement.random} if judgement.random else {})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure")
    for who in cells:
        table.add_column(Text(printable(who)), justify="right")
        table.add_column("95%", justify="right")
    for figure in judgement.pretrained.figures:
        row = [Text(metric_name(figure))]
        for cell in cells.values():
            value = cell.figures[figure]
            shown = "–" if math.isnan(value) else f"{100 * value:.1f}" if _is_share(figure) else f"{value:.3f}"
            own = _interval(cell)
            row += [Text(shown), Text(span(own.low, own.high) if figure == cell.metric else "")]
        table.add_row(*row)
    console.print(table)
    counts = ", ".join(f"{n:,} {what}" for what, n in judgement.pretrained.counts.items())
    console.print(Text(printable(f"{counts}. Figures in percent; intervals: 95% over test images.")))
    if judgement.gain is not None:
        d = judgement.gain
        what = metric_name(judgement.pretrained.metric)
        how = f"{span(d.low, d.high, '+')}), p {d.p:.3f}" if d.images > 1 else "one test image: no interval)"
        line = f"Over random weights: {100 * d.value:+.1f} points {what} ({how}."
        console.print(Text(line))
    if entry.published:
        others = ", ".join(f"{who} {value:g}" for who, value in entry.published.items())
        console.print(Text(f"Published by others, in percent, on the full data with ResNet-50: {others}."))
    said = {who: [f"Note: {warning}" for warning in few_images(cell.images)] for who, cell in cells.items()}
    for who, cell in cells.items():
        used = {k: v for k, v in chosen(cell, settings).items() if isinstance(v, int | float | str)}
        if used:
            said[who].append(f"Used: {', '.join(f'{k} {v}' for k, v in used.items())}.")
        said[who] += [f"Note: {warning}" for warning in cell.warnings]
    for line in dict.fromkeys(line for lines in said.values() for line in lines):
        whose = [who for who, lines in said.items() if line in lines]
        kind, _, text = line.partition(": ")
        console.print(Text(printable(line if len(whose) == len(cells) else f"{kind} ({whose[0]}): {text}")))


UNBOUNDED = ("alignment", "uniformity", "effective_rank")
"""Figures that are no shares."""


def _is_share(figure: str) -> bool:
    return figure not in UNBOUNDED


def _write(judgement: Judgement, about: Mapping[str, Any], entry: Entry, settings: Settings, out: Path) -> None:
    make_folder(out, parents=True)
    cells = {"pretrained": judgement.pretrained, "random": judgement.random}
    document: dict[str, Any] = {
        "protocol": judgement.protocol,
        "preset": judgement.preset,
        "settings_from": entry.source or "ours",
        "metric": judgement.pretrained.metric,
        **about,
        "published_by_others_percent": dict(entry.published),
    }
    for who, cell in cells.items():
        if cell is None:
            continue
        own = _interval(cell)
        document[who] = {
            "value": own.value,
            "low": own.low,
            "high": own.high,
            "test_images": cell.images,
            "figures": dict(cell.figures),
            "per_class": dict(cell.per_class),
            "counts": dict(cell.counts),
            "warnings": list(cell.warnings),
            "settings_used": chosen(cell, settings),
            "seconds": round(cell.seconds, 3),
        }
    if judgement.gain is not None:
        document["gain_over_random"] = asdict(judgement.gain)
    text = json.dumps(plain(document), indent=1, allow_nan=False) + "\n"
    write_bytes(out / "result.json", text.encode("utf-8", "backslashreplace"))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    names = [who for who, cell in cells.items() if cell is not None]
    table.writerow(["class", *names])
    for label in judgement.pretrained.per_class:
        values = [cell.per_class.get(label, math.nan) for cell in cells.values() if cell is not None]
        table.writerow([label, *("" if math.isnan(v) else f"{v:.6f}" for v in values)])
    write_bytes(out / "per_class.csv", buffer.getvalue().encode("utf-8", "surrogateescape"))
