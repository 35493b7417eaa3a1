"""``cyborgs curve``: Figure 5b, the checkpoints of a run through one or several protocols, over the epochs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing import pictures, tables
from cyborgs.evaluation.comparing.compare import Compared, check_seeds, epoch_of
from cyborgs.evaluation.comparing.task import measured, open_task
from cyborgs.evaluation.protocols.catalogue import DEFAULT_PRESET, Preset
from cyborgs.files import make_folder, write_bytes
from cyborgs.metrics.figures import write_json
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone
from cyborgs.runs import recipe_file

SNAPSHOT: Final = re.compile(r"epoch-(\d{4,})\.safetensors")


def snapshots_of(run: Path) -> dict[int, Path]:
    """What a run kept in ``snapshots/``, by rising epochs done, and its result where that is not among them.

    Raises:
        UserError: no run, or it kept none.
    """
    folder = run / "snapshots"
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: is no run's folder (recipe.yaml is missing).")
    found = {
        int(match[1]): file
        for file in (folder.iterdir() if folder.is_dir() else ())
        if (match := SNAPSHOT.fullmatch(file.name))
    }
    if not found:
        raise UserError(
            f"{run}: kept no checkpoints of its backbone. Pretrain with --snapshots 5 25 50 100 (epochs to keep) "
            "or --snapshot-refreshes."
        )
    if (run / "backbone.safetensors").is_file():
        found.setdefault(recipe_file.load(run / "recipe.yaml").epochs, run / "backbone.safetensors")
    return dict(sorted(found.items()))


def curve_of_run(
    run: str | Path,
    *,
    data: Sequence[str | Path],
    protocols: Sequence[str] = ("coco-stuff", "coco-stuff-probe"),
    out: str | Path | None = None,
    preset: Preset = DEFAULT_PRESET,
    seeds: int = 1,
    draws: int = 1000,
    device: str = "cpu",
    workers: int = 0,
) -> dict[str, Compared]:
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

    Returns:
        By protocol what was measured; the backbones are called ``epoch 0``, ``epoch 5``, ...

    Raises:
        UserError: no run, no checkpoints kept, or the input is at fault.
    """
    check_seeds(seeds)
    run = Path(run)
    folder = run / "curve" if out is None else Path(out)
    places = [str(place) for place in data]
    if len(places) == 1:
        places *= len(protocols)
    if len(places) != len(protocols) or not protocols:
        raise UserError(f"--data: need one place, or one for each of {len(protocols)} protocols, got {len(places)}.")
    twice = next((name for name in protocols if list(protocols).count(name) > 1), None)
    if twice is not None:
        raise UserError(f"--protocols: {twice} is there twice. Give it once for each --out.")
    files = {f"epoch {epoch}": file for epoch, file in snapshots_of(run).items()}
    tasks = [open_task(name, place, preset) for name, place in zip(protocols, places, strict=True)]

    def opened(name: str, seed: int) -> Backbone:
        return load_backbone(files[name]).to(device).eval()

    found = {
        task.protocol: measured(
            *(task, list(files), opened),
            seeds=range(seeds),
            draws=draws,
            out=folder,
            device=device,
            workers=workers,
        )
        for task in tasks
    }
    kept = ("data", "standing", "settings")
    about = {
        "run": printable(str(run)),
        "preset": preset,
        "protocols": {
            task.protocol: {"counts": task.data.counts} | {key: task.about()[key] for key in kept} for task in tasks
        },
        "seeds": list(range(seeds)),
        "draws": draws,
        "versions": recipe_file.environment(),
    }
    write(found, about, f"{run.name or run.resolve().name}: checkpoints", folder)
    tables.show(tables.of_curve(found), f"{run}, preset {preset}. Intervals: 95% over test images.")
    print(printable(f"Written: {folder} (curve.json, curve.png)"))
    return found


def write(curve: Mapping[str, Compared], about: Mapping[str, Any], title: str, out: Path) -> None:
    """``curve.json`` and ``curve.png`` in ``out``."""
    make_folder(out, parents=True)
    points = []
    for backbone in next(iter(curve.values())).backbones:
        for name, found in curve.items():
            own = found.value(backbone)
            points.append(
                {
                    "epoch": epoch_of(backbone),
                    "protocol": name,
                    "metric": found.metric,
                    "value": own.value,
                    "low": own.low,
                    "high": own.high,
                    "seeds": len(found.seeds),
                    "test_images": own.photos,
                }
            )
    write_json(out / "curve.json", {**about, "points": points})
    write_bytes(out / "curve.png", pictures.of_curve(curve, title))
