"""``cyborgs compare``: backbones through one protocol on one's own labels; ``compare.json``, ``.md`` and ``.png``."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cyborgs.errors import UserError, printable
from cyborgs.evaluation.comparing import pictures, tables
from cyborgs.evaluation.comparing.cells import chosen
from cyborgs.evaluation.comparing.compare import Compared, check_seeds, check_shares, sentence
from cyborgs.evaluation.comparing.task import Opener, measured, open_task
from cyborgs.evaluation.protocols.catalogue import DEFAULT_PRESET, Preset, Settings
from cyborgs.evaluation.sets.layouts import guess_protocol
from cyborgs.features.colour_order import colour_doubt
from cyborgs.files import make_folder, write_bytes
from cyborgs.metrics.figures import write_json
from cyborgs.runs import recipe_file


def photos_of_run(name: str) -> int | None:
    """How many photos a run was pretrained on; None: ``name`` is no run's folder."""
    listed = Path(name) / "images.csv"
    if not listed.is_file():
        return None
    with open(listed, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return max(0, sum(1 for _ in csv.reader(file)) - 1)


def compare_backbones(
    backbone: Sequence[str | Path],
    *,
    data: str | Path,
    out: str | Path = "compare",
    protocol: str = "",
    preset: Preset = DEFAULT_PRESET,
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
        backbone: names as ``models.named`` takes them; the first is compared with each of the others.
        data: labelled photos, as the protocol reads them.
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
    names, out, parts = [str(one) for one in backbone], Path(out), [share / 100 for share in shares]
    check_seeds(seeds)
    check_shares(parts)
    if not names:
        raise UserError("--backbone: need at least one.")
    task = open_task(protocol or guess_protocol(str(data)), str(data), preset, settings)
    opener = Opener(names, device)
    doubts = {one: colour_doubt(opener(one, 0), task.data) for one in names if not one.startswith("random")}
    found = measured(
        *(task, names, opener),
        seeds=range(seeds),
        shares=parts,
        draws=draws,
        out=out,
        device=device,
        workers=workers,
    )
    photos = photos_of_run(names[0])
    said = sentence(found, None if photos is None else f"pretraining on your {photos:,} photos")
    counts = ", ".join(f"{n:,} {what}" for what, n in found.counts.items())
    facts = (
        f"{task.protocol}, preset {preset}, {seeds} seed{'s' if seeds > 1 else ''}; {counts}. "
        f"Intervals: 95% over test images{' and seeds' if seeds > 1 else ''}."
    )
    about = {
        **task.about(min(parts)),
        "draws": draws,
        "colours": {printable(one): doubt for one, doubt in doubts.items()},
        "versions": recipe_file.environment(),
    }
    write(found, said, task.settings, about, facts, out)
    tables.show(tables.of_comparison(found), facts)
    for warning in [*found.warnings, *(f"{one}: {doubt}" for one, doubt in doubts.items() if doubt)]:
        print(printable(f"Note: {warning}"))
    print(printable(said))
    print(printable(f"Written: {out} (compare.json, compare.md, compare.png)"))
    return found


def write(
    compared: Compared, sentence: str, settings: Settings, about: Mapping[str, Any], facts: str, out: Path
) -> None:
    """``compare.json`` (all but the draws), ``compare.md`` and ``compare.png`` in ``out``."""
    make_folder(out, parents=True)
    document = {
        "sentence": sentence,
        "protocol": compared.protocol,
        "metric": compared.metric,
        "counts": compared.counts,
        "warnings": compared.warnings,
        **about,
        "rows": [_row(compared, b, share, settings) for share in compared.shares for b in compared.backbones],
    }
    write_json(out / "compare.json", document)
    page = tables.markdown(compared, sentence, facts, about.get("standing", ""))
    write_bytes(out / "compare.md", page.encode("utf-8", "backslashreplace"))
    write_bytes(out / "compare.png", pictures.of_comparison(compared, sentence))


def _row(compared: Compared, backbone: str, share: float, settings: Settings) -> dict[str, Any]:
    own, cells = compared.value(backbone, share), [compared.cells[backbone, share, seed] for seed in compared.seeds]
    row: dict[str, Any] = {
        "backbone": backbone,
        "share": share,
        "value": own.value,
        "low": own.low,
        "high": own.high,
        "test_images": own.photos,
        "seeds": [
            {
                "seed": seed,
                "value": cell.value,
                "figures": cell.figures,
                "settings_used": chosen(cell, settings),
                "seconds": round(cell.seconds, 3),
            }
            for seed, cell in zip(compared.seeds, cells, strict=True)
        ],
    }
    if backbone != compared.backbones[0]:
        d = compared.less(compared.backbones[0], backbone, share)
        row["first_less_it"] = {"value": d.value, "low": d.low, "high": d.high, "p": d.p}
    return row
