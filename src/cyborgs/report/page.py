"""The page of a run that is there already."""

from __future__ import annotations

import json
from pathlib import Path

from cyborgs.data.images import Images
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.errors import UserError
from cyborgs.report.render import render


def report(
    run: str | Path, *, data: str | Path | None = None, truth: str | Path | None = None, out: str | Path | None = None
) -> Path:
    """Write the page of a run; the path of the page.

    Args:
        run: the run's folder; quality.json and probe.json in it are shown where they exist.
        data: the photos it was pretrained on; None: no pictures.
        truth: folder with the truth of photo ``a/b.jpg`` as ``a/b.png``.
        out: the page; ``report.html`` in the run's folder by default.

    Raises:
        UserError: no run there, or other photos than the run's.
    """
    run = Path(run)
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run}: holds no run (recipe.yaml is missing).")
    images = None
    if data is not None:
        images = Images.from_scan(scan(list_images(data)))
        known = json.loads((run / "photos.json").read_text())
        if known["fingerprint"] != images.fingerprint():
            raise UserError(
                f"{data}: not the photos of {run} ({known['photos']} then, {len(images)} now, or other contents)."
            )
    measured = {
        name: json.loads((run / f"{name}.json").read_text()) if (run / f"{name}.json").is_file() else None
        for name in ("quality", "probe")
    }
    return render(run, photos=images, truth=truth, quality=measured["quality"], probe=measured["probe"], out=out)
