"""Pictures of a report as data URIs: photos, their masks in each generation, the truth."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cyborgs.data.palette import overlay, palette
from cyborgs.data.store import StoreError
from cyborgs.masks.store import MaskStore

UInt8 = NDArray[np.uint8]


class Photos(Protocol):
    """Photos by number, as ``data.images.Images``."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3)."""
        ...

    def name(self, i: int) -> str:
        """Its path below the photos' folder."""
        ...


@dataclass(frozen=True)
class Picture:
    """One picture of the page."""

    title: str
    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """A photo and what belongs to it."""

    name: str
    pictures: tuple[Picture, ...]


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of the numbers 0..count-1, evenly spread, first and last among them."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


def picture(image: UInt8, title: str, alt: str, *, width: int, kind: str = "JPEG") -> Picture:
    """uint8 (H, W, 3) as a data URI, shrunk to ``width`` pixels where it is wider."""
    shown = Image.fromarray(image)
    # The longer side counts too, or a tall strip would become the whole page.
    shown.thumbnail((width, 2 * width), Image.Resampling.BOX)
    buffer = io.BytesIO()
    shown.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(title, f"data:image/{kind.lower()};base64,{data}", alt, shown.width, shown.height)


def shown_generations(run: Path, most: int = 5) -> list[int]:
    """Numbers of the generations that a page shows: evenly spread ones, first and last among them."""
    try:
        found = MaskStore(run).generations()
    except StoreError:
        return []
    return [found[i] for i in spread(len(found), most)]


def truth_of(folder: Path | None, name: str) -> UInt8 | None:
    """The truth of a photo, ``<folder>/<its path>.png``, uint8 (H, W); None where there is none."""
    if folder is None:
        return None
    path = folder / PurePosixPath(name).with_suffix(".png")
    if not path.is_file():
        return None
    with Image.open(path) as opened:
        return np.array(opened).astype(np.uint8) if opened.mode in ("L", "P", "1") else None


def rows_of(
    run: Path,
    photos: Photos,
    truth: Path | None,
    *,
    generations: Sequence[int],
    overlaps: Mapping[int, Sequence[float | None]] | None = None,
    count: int = 8,
    width: int = 240,
) -> list[Row]:
    """The pictures of ``count`` photos, evenly spread; ``overlaps``: by generation, the best overlap of each photo."""
    stores = [(g, MaskStore(run, generation=g)) for g in generations]
    rows = []
    for i in spread(len(photos), count):
        image, name = photos.read(i), photos.name(i)
        small = np.asarray(_shrunk(image, width))
        pictures = [picture(small, "photo", f"photo {name}", width=width)]
        for g, store in stores:
            values = (overlaps or {}).get(g)
            labels = store[i]
            regions = len(np.unique(labels))
            pictures.append(
                picture(
                    # Without borders: they would hide what is drawn where regions are small.
                    overlay(small, labels, alpha=0.65, edges=False),
                    f"masks {g}" + _overlap(values, i),
                    f"masks of generation {g} over {name}: {regions} labels",
                    width=width,
                )
            )
        real = truth_of(truth, name)
        if real is not None:
            alt = f"ground truth of {name}: {len(np.unique(real))} classes"
            pictures.append(picture(palette()[real], "ground truth", alt, width=width, kind="PNG"))
        rows.append(Row(name, tuple(pictures)))
    for _, store in stores:
        store.close()
    return rows


def _shrunk(image: UInt8, width: int) -> Image.Image:
    shown = Image.fromarray(image)
    shown.thumbnail((width, 2 * width), Image.Resampling.BOX)
    return shown


def _overlap(values: Sequence[float | None] | None, i: int) -> str:
    value = values[i] if values is not None and i < len(values) else None
    return "" if value is None or math.isnan(value) else f": {value:.2f}"
