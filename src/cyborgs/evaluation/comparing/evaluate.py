"""``cyborgs evaluate``: a backbone through a protocol, random weights beside it; ``result.json`` and ``per_class.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing import tables
from cyborgs.evaluation.comparing.cells import Cell, chosen
from cyborgs.evaluation.comparing.compare import Compared, metric_name
from cyborgs.evaluation.comparing.task import Opener, Task, measured, open_task
from cyborgs.evaluation.protocols.catalogue import DEFAULT_PRESET, Preset, Settings
from cyborgs.features.colour_order import colour_doubt
from cyborgs.files import make_folder
from cyborgs.metrics.figures import write_csv, write_json
from cyborgs.metrics.paired import few_images, span
from cyborgs.models.weights import weights_hash
from cyborgs.runs import recipe_file


def evaluate(
    protocol: str,
    backbone: str | Path,
    *,
    data: str | Path,
    settings: Settings | None = None,
    preset: Preset = DEFAULT_PRESET,
    random_baseline: bool = True,
    share: float = 1.0,
    seed: int = 0,
    draws: int = 1000,
    out: str | Path | None = None,
    device: str = "cpu",
    workers: int = 0,
) -> Compared:
    """Judge a backbone by a protocol: a table, and ``result.json`` and ``per_class.csv`` in ``out``.

    Args:
        protocol: its name.
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

    Returns:
        The backbone's figures, and beside it those of ``random``.

    Raises:
        UserError: the input is at fault; says what to do.
        Stopped: a training was, once its checkpoint was written.
    """
    backbone, out = str(backbone), None if out is None else Path(out)
    if not 0 < share <= 1:
        raise UserError(f"--share: need a share of the training labels, above 0 to 1, got {share}.")
    task = open_task(protocol, str(data), preset, settings, seed)
    names = [backbone, "random"] if random_baseline and not backbone.startswith("random") else [backbone]
    opener = Opener(names, device)
    network = opener(backbone, seed)
    doubt = colour_doubt(network, task.data)
    found = measured(
        *(task, names, opener), seeds=[seed], shares=[share], draws=draws, out=out, device=device, workers=workers
    )
    if doubt is not None:
        key = backbone, share, seed
        warned = replace(found.cells[key], warnings=(*found.cells[key].warnings, doubt))
        found = replace(found, cells={**found.cells, key: warned})
    tables.show(tables.of_evaluation(found), *_below(found, task), left=1)
    if out is not None:
        make_folder(out, parents=True)
        about = {
            **task.about(share),
            "backbone": printable(backbone),
            "share": share,
            "seed": seed,
            "weights_xxh64": weights_hash(network),
            "versions": recipe_file.environment(),
        }
        write_json(out / "result.json", _document(found, task, about))
        write_csv(out / "per_class.csv", _per_class(found))
        print(printable(f"Written: {out} (result.json, per_class.csv)"))
    return found


def _cells(found: Compared) -> dict[str, Cell]:
    """By backbone: there is one seed and one share."""
    return {backbone: found.cells[backbone, found.shares[0], found.seeds[0]] for backbone in found.backbones}


def _below(found: Compared, task: Task) -> list[str]:
    """Lines for a reader below the table."""
    cells, (share,) = _cells(found), found.shares
    counts = ", ".join(f"{n:,} {what}" for what, n in cells[found.backbones[0]].counts.items())
    lines = [f"{counts}. Figures in percent; intervals: 95% over test images."]
    for other in found.backbones[1:]:
        gain = found.less(found.backbones[0], other, share)
        how = (
            f"{span(gain.low, gain.high, '+')}), p {gain.p:.3f}" if gain.images > 1 else "one test image: no interval)"
        )
        lines.append(f"Over {other} weights: {100 * gain.value:+.1f} points {metric_name(found.metric)} ({how}.")
    if task.entry.published:
        others = ", ".join(f"{who} {value:g}" for who, value in task.entry.published.items())
        lines.append(f"Published by others, in percent, on the full data with ResNet-50: {others}.")
    return lines + _notes(cells, task.settings)


def _notes(cells: Mapping[str, Cell], settings: Settings) -> list[str]:
    """What a reader must know beside the figures, each once; with a name where it is not so of all."""
    said: dict[tuple[str, str], list[str]] = {}
    for who, cell in cells.items():
        used = [f"{k} {v}" for k, v in chosen(cell, settings).items() if isinstance(v, int | float | str)]
        lines = [("Note", warning) for warning in few_images(cell.images)]
        lines += [("Used", f"{', '.join(used)}.")] if used else []
        for line in [*lines, *(("Note", warning) for warning in cell.warnings)]:
            said.setdefault(line, []).append(who)
    return [
        f"{kind}: {text}" if len(whose) == len(cells) else f"{kind} ({whose[0]}): {text}"
        for (kind, text), whose in said.items()
    ]


def _document(found: Compared, task: Task, about: Mapping[str, Any]) -> dict[str, Any]:
    (share,) = found.shares
    document: dict[str, Any] = {
        "protocol": found.protocol,
        "metric": found.metric,
        **about,
        "published_by_others_percent": dict(task.entry.published),
    }
    for who, (backbone, cell) in zip(("pretrained", "random"), _cells(found).items(), strict=False):
        own = found.value(backbone, share)
        document[who] = {
            "value": own.value,
            "low": own.low,
            "high": own.high,
            "test_images": cell.images,
            "figures": dict(cell.figures),
            "per_class": dict(cell.per_class),
            "counts": dict(cell.counts),
            "warnings": list(cell.warnings),
            "settings_used": chosen(cell, task.settings),
            "seconds": round(cell.seconds, 3),
        }
    for other in found.backbones[1:]:
        document["gain_over_random"] = asdict(found.less(found.backbones[0], other, share))
    return document


def _per_class(found: Compared) -> list[list[object]]:
    cells = list(_cells(found).values())
    rows: list[list[object]] = [["class", *("pretrained", "random")[: len(cells)]]]
    return rows + [[label, *(cell.per_class.get(label, math.nan) for cell in cells)] for label in cells[0].per_class]
