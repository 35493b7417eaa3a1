"""Pictures of a report as data URIs: photos, their masks in each generation, the truth, neighbours."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cyborgs.data.images import Images
from cyborgs.data.palette import overlay, palette
from cyborgs.data.store_format import StoreError
from cyborgs.errors import printable
from cyborgs.masks.store import MaskStore

UInt8 = NDArray[np.uint8]

PHOTO_BYTES: Final = 1_900_000
"""Room on the page for photos and masks."""
NEIGHBOUR_BYTES: Final = 700_000
MONITOR_BYTES: Final = 700_000
_STEPS: Final = ((85, 1.0), (70, 1.0), (60, 0.75), (45, 0.5), (30, 0.35))
"""Quality and size that are tried one after the other until the pictures fit their room."""
COUNTED: Final = 2000
"""Photos whose regions are counted, at most."""


@dataclass(frozen=True)
class Drawn:
    """A picture before it is made small enough for the page."""

    title: str
    alt: str
    image: UInt8
    """uint8 (h, w, 3)."""
    kind: str = "JPEG"


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
    drawn: tuple[Drawn, ...]
    pictures: tuple[Picture, ...] = ()


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of the numbers 0..count-1, evenly spread, first and last among them."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


def encode(drawn: Drawn, quality: int = 85, size: float = 1.0) -> Picture:
    """As a data URI, in JPEG of that quality or PNG, ``size`` times as large."""
    shown = Image.fromarray(drawn.image)
    if size < 1:
        shown = shown.resize(
            (max(1, round(shown.width * size)), max(1, round(shown.height * size))), Image.Resampling.BOX
        )
    buffer = io.BytesIO()
    shown.save(buffer, drawn.kind, **({"quality": quality} if drawn.kind == "JPEG" else {"optimize": True}))
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    # The size on the page stays: fewer pixels, not a smaller picture.
    height, width = drawn.image.shape[:2]
    return Picture(drawn.title, f"data:image/{drawn.kind.lower()};base64,{data}", drawn.alt, width, height)


def fitted(rows: Sequence[Row], room: int) -> list[Row]:
    """The rows with their pictures encoded, in ``room`` bytes; the last rows go where nothing else helps."""
    for quality, size in _STEPS:
        made = [replace(row, pictures=tuple(encode(d, quality, size) for d in row.drawn)) for row in rows]
        if _bytes(made) <= room:
            return made
    while made and _bytes(made) > room:
        made.pop()
    return made


def _bytes(rows: Sequence[Row]) -> int:
    return sum(len(p.uri) for row in rows for p in row.pictures)


def small(image: UInt8, width: int) -> UInt8:
    """uint8 (H, W, 3), shrunk to ``width`` pixels, and to twice that in height, where it is larger."""
    shown = Image.fromarray(image)
    # The height counts too, or a tall strip would become the whole page.
    shown.thumbnail((width, 2 * width), Image.Resampling.BOX)
    return np.asarray(shown)


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


def open_generations(run: Path, numbers: Sequence[int]) -> dict[int, MaskStore]:
    """The stores of these generations; one that a run which goes on has just removed is left out."""
    found = {}
    for number in numbers:
        try:
            found[number] = MaskStore(run, generation=number)
        except StoreError:
            continue
    return found


def rows_of(
    stores: Mapping[int, MaskStore],
    photos: Images,
    truth: Path | None,
    *,
    overlaps: Mapping[int, Sequence[float | None]] | None = None,
    count: int = 8,
    width: int = 240,
) -> list[Row]:
    """The pictures of ``count`` photos, evenly spread; ``overlaps``: by generation, the best overlap of each photo."""
    rows = []
    for i in spread(len(photos), count):
        name = printable(photos.name(i))
        photo = small(photos.read(i), width)
        drawn = [Drawn("photo", f"photo {name}", photo)]
        for g, store in stores.items():
            labels = store[i]
            drawn.append(
                Drawn(
                    f"masks {g}" + _overlap((overlaps or {}).get(g), i),
                    f"masks of generation {g} over {name}: {len(np.unique(labels))} labels",
                    # Without borders: they would hide what is drawn where regions are small.
                    overlay(photo, labels, alpha=0.65, edges=False),
                )
            )
        real = truth_of(truth, photos.name(i))
        if real is not None:
            alt = f"ground truth of {name}: {len(np.unique(real))} classes"
            drawn.append(Drawn("ground truth", alt, small(palette()[real], width), "PNG"))
        rows.append(Row(name, tuple(drawn)))
    return rows


def region_counts(stores: Mapping[int, MaskStore]) -> dict[int, list[int]]:
    """By generation: labels in each photo, of evenly spread photos where there are many."""
    return {g: [len(np.unique(store[i])) for i in spread(len(store), COUNTED)] for g, store in stores.items()}


def _overlap(values: Sequence[float | None] | None, i: int) -> str:
    value = values[i] if values is not None and i < len(values) else None
    return "" if value is None or math.isnan(value) else f": {value:.2f}"
