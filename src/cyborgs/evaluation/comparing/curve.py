"""Figure 5b: the checkpoints of a run through one or several protocols, over the epochs."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing.cells import Cell, measure
from cyborgs.evaluation.comparing.compare import metric_name
from cyborgs.evaluation.comparing.compare_files import COLOURS, MARKS
from cyborgs.evaluation.contract import Context, Data
from cyborgs.evaluation.protocols.catalogue import Settings
from cyborgs.files import make_folder, write_bytes
from cyborgs.metrics.paired import mean_over, span
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone

SNAPSHOT = re.compile(r"epoch-(\d{4,})\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """A backbone of a run."""

    epoch: int
    """Epochs done."""
    file: Path


@dataclass(frozen=True)
class Point:
    """One checkpoint by one protocol."""

    protocol: str
    epoch: int
    cells: tuple[Cell, ...]
    """One a seed."""


def snapshots_of(run: Path) -> list[Snapshot]:
    """What a run kept in ``snapshots/``, by rising epoch, and its result where that is not among them.

    Raises:
        UserError: no run, or it kept none.
    """
    folder = run / "snapshots"
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: is no run's folder (recipe.yaml is missing).")
    found = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := SNAPSHOT.fullmatch(file.name):
            found[int(match[1])] = Snapshot(int(match[1]), file)
    if not found:
        raise UserError(
            f"{run}: kept no checkpoints of its backbone. Pretrain with --snapshots 5 25 50 100 (epochs to keep) "
            "or --snapshot-refreshes."
        )
    result = run / "backbone.safetensors"
    if result.is_file():
        from cyborgs.runs import recipe_file

        epochs = recipe_file.load(run / "recipe.yaml").epochs
        found.setdefault(epochs, Snapshot(epochs, result))
    return [found[epoch] for epoch in sorted(found)]


def measure_curve(
    run: Path,
    protocols: Mapping[str, tuple[Data, Settings]],
    context: Context,
    *,
    seeds: Sequence[int] = (0,),
    draws: int = 1000,
    store: Path | None = None,
    open_file: Callable[[Path], Backbone] = load_backbone,
    told: Callable[[Point], None] | None = None,
) -> list[Point]:
    """Every checkpoint through every protocol; finished cells in ``store`` are not measured again.

    Args:
        run: its folder.
        protocols: name -> opened data and settings.
        context: as for ``cells.measure``; its seed is not used.
        seeds: of heads and orders.
        draws: of the test images.
        store: folder of finished cells.
        open_file: reads a checkpoint.
        told: called after each point.

    Raises:
        UserError: no run, no checkpoints, or the input is at fault.
    """
    points = []
    for snapshot in snapshots_of(run):
        backbone = open_file(snapshot.file)
        for name, (data, settings) in protocols.items():
            cells = tuple(
                measure(name, backbone, data, settings, replace(context, seed=seed), draws=draws, store=store)
                for seed in seeds
            )
            points.append(Point(name, snapshot.epoch, cells))
            if told is not None:
                told(points[-1])
    return points


def rows(points: Sequence[Point]) -> list[list[str]]:
    """The table, its head first."""
    table = [["epoch", "protocol", "figure", "value", "95%"]]
    for point in points:
        cells = point.cells
        own = mean_over([c.value for c in cells], [c.draws for c in cells], cells[0].images)
        table.append(
            [
                str(point.epoch),
                point.protocol,
                metric_name(cells[0].metric),
                f"{100 * own.value:.1f}",
                span(own.low, own.high),
            ]
        )
    return table


def write(points: Sequence[Point], about: Mapping[str, Any], title: str, out: Path) -> None:
    """``curve.json`` and ``curve.png`` in ``out``."""
    make_folder(out, parents=True)
    found = []
    for point in points:
        cells = point.cells
        own = mean_over([c.value for c in cells], [c.draws for c in cells], cells[0].images)
        numbers = {"value": own.value, "low": own.low, "high": own.high}
        found.append(
            {
                "epoch": point.epoch,
                "protocol": point.protocol,
                "metric": cells[0].metric,
                **{k: None if math.isnan(v) else v for k, v in numbers.items()},
                "seeds": len(cells),
                "test_images": own.photos,
            }
        )
    text = json.dumps({**about, "points": found}, indent=1, allow_nan=False) + "\n"
    write_bytes(out / "curve.json", text.encode("utf-8", "backslashreplace"))
    write_bytes(out / "curve.png", picture(points, title))


def picture(points: Sequence[Point], title: str) -> bytes:
    """PNG: a line with its interval for each protocol, an axis each, over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(dict.fromkeys(p.protocol for p in points))
    figure = Figure(figsize=(6.4, 1.0 + 2.4 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), 1, squeeze=False, sharex=True)[:, 0]
    for place, (name, axis) in enumerate(zip(names, axes, strict=True)):
        own = [p for p in points if p.protocol == name]
        values = [mean_over([c.value for c in p.cells], [c.draws for c in p.cells], p.cells[0].images) for p in own]
        x = [p.epoch for p in own]
        colour = COLOURS[place % len(COLOURS)]
        axis.plot(x, [100 * v.value for v in values], color=colour, marker=MARKS[place % len(MARKS)])
        axis.fill_between(
            x, [100 * v.low for v in values], [100 * v.high for v in values], color=colour, alpha=0.15, linewidth=0
        )
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_ylabel(f"{metric_name(own[0].cells[0].metric)}, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1].set_xlabel("epochs of pretraining (band: 95% over test images)")
    figure.suptitle(printable(title), fontsize=10, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
