"""The page of a run that is there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.log import moving
from cyborgs.errors import UserError
from cyborgs.report.render import Found, render
from cyborgs.runs.recipe import Recipe


def report(
    run: str | Path,
    *,
    data: str | Path | None = None,
    truth: str | Path | None = None,
    out: str | Path | None = None,
    recipes: Mapping[str, Callable[[], Recipe]] | None = None,
    find: Callable[[Path, Images], Found] | None = None,
) -> Path:
    """Write the page of a run, finished or going on; the path of the page.

    Args:
        run: the run's folder; quality.json and probe.json in it are shown where they exist.
        data: the photos it was pretrained on; None: no pictures.
        truth: folder with the truth of photo ``a/b.jpg`` as ``a/b.png``.
        out: the page; ``report.html`` in the run's folder by default.
        recipes: by name: what the run's recipe is compared with.
        find: nearest regions of the run's photos (``evaluation.of_run.neighbours_of_run``).

    Raises:
        UserError: no run there, other photos than the run's, or a page that would lie among the photos.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: holds no run (recipe.yaml is missing).")
    images = None
    if data is not None:
        _outside(Path(out) if out is not None else run / "report.html", run, Path(data))
        with moving("reading photos") as progress:
            images = ScannedImages.from_scan(scan(list_images(data), progress=progress))
        known = json.loads((run / "photos.json").read_text())
        if known["fingerprint"] != images.fingerprint():
            raise UserError(
                f"{data}: not the photos of {run} ({known['photos']} then, {len(images)} now, or other contents)."
            )
    measured = {
        name: json.loads((run / f"{name}.json").read_text()) if (run / f"{name}.json").is_file() else None
        for name in ("quality", "probe")
    }
    return render(
        run,
        photos=images,
        truth=truth,
        quality=measured["quality"],
        probe=measured["probe"],
        neighbours=find(run, images) if find is not None and images is not None else None,
        recipes=recipes,
        out=out,
    )


def _outside(page: Path, run: Path, data: Path) -> None:
    """Nothing is written among the photos, unless the run itself lies there."""
    page, run, data = page.resolve(), run.resolve(), data.resolve()
    if page.is_relative_to(data) and not page.is_relative_to(run):
        raise UserError(f"{page}: lies in the folder of the photos, where nothing is written. Give another --out.")
