"""The photos of a run: listed, scanned, and refused where they cannot be trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from cyborgs.data.listing import list_images
from cyborgs.data.scan import Scan, scan
from cyborgs.engine.contract import Stopped
from cyborgs.engine.log import moving
from cyborgs.engine.signals import Stop
from cyborgs.errors import UserError, printable
from cyborgs.runs.recipe import Recipe


def scan_photos(data: Path, recipe: Recipe, stream: TextIO | None, stop: Stop | None = None) -> Scan:
    """List and scan the photos; refuse a set that is mostly unreadable or smaller than a batch.

    Raises:
        UserError: says which it was, of which folder, and what to do.
        Stopped: ``stop`` was asked.
    """
    listing = list_images(data)
    with moving("reading photos", stream) as progress:

        def look(done: int, total: int) -> None:
            progress(done, total)
            if stop:
                raise Stopped(stop.signal)

        found = scan(listing, progress=look)
    images, skipped = len(found.images), len(found.skipped)
    if skipped > recipe.max_skipped * (images + skipped):
        name, reason = printable(found.skipped[0][0]), found.skipped[0][1]
        raise UserError(
            f"{data}: {skipped} of {images + skipped} files cannot be read, more than max_skipped = "
            f"{recipe.max_skipped:.0%}. The first: {name}: {reason}. Remove them or raise --max-skipped."
        )
    if images < recipe.batch_size:
        raise UserError(
            f"{data}: {images} usable photos, fewer than batch_size {recipe.batch_size}. "
            "Add photos or lower --batch-size."
        )
    return found
