"""What the samplers of ``views/samplers.py`` draw. No torch here.

A crop takes from the sample's generator always as much, whatever comes of it, so that no crop moves the draws of
another: ``Free`` 23 numbers, every other sampler one whole number of 63 bits, the seed of a generator of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyborgs.structures import ViewGeometry
from cyborgs.views.config import Crop
from cyborgs.views.geometry import random_geometry
from cyborgs.views.samplers import AroundBox, Free, Overlapping, Salient

SALIENT = 128
"""A pixel is salient above this."""

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


def draw_geometries(
    rng: np.random.Generator,
    crops: Sequence[Crop],
    sizes: Sequence[tuple[int, int]],
    prepared: Sequence[Mapping[str, NDArray[Any]]],
) -> list[ViewGeometry]:
    """Where each crop lies, in their order.

    Args:
        rng: the sample's generator.
        crops: the crops.
        sizes: (height, width) of the photo that each shows.
        prepared: of that photo: boxes, int (n, 4) of x, y, width, height; saliency, uint8 (h, w).
    """
    done: list[ViewGeometry] = []
    boxes: list[Box | None] = []
    for crop, (height, width), known in zip(crops, sizes, prepared, strict=True):
        sampler, box = crop.sampler, None
        match sampler:
            case Free():
                geometry = random_geometry(rng, height, width, crop)
            case Overlapping():
                geometry = _overlapping(_own(rng), height, width, crop, sampler, done[sampler.crop])
            case AroundBox():
                own = _own(rng)
                box = boxes[sampler.like] if sampler.like >= 0 else _one_of(own, known[sampler.artefact], height, width)
                assert box is not None
                geometry = _around(own, height, width, crop, sampler, box)
            case Salient():
                geometry = _salient(_own(rng), height, width, crop, sampler, known[sampler.artefact])
        done.append(geometry)
        boxes.append(box)
    return done


def _own(rng: np.random.Generator) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(rng.integers(1 << 63))))


def overlap(one: ViewGeometry, other: ViewGeometry) -> float:
    """Pixels that both show, of one photo."""
    height = min(one.y0 + one.h, other.y0 + other.h) - max(one.y0, other.y0)
    width = min(one.x0 + one.w, other.x0 + other.w) - max(one.x0, other.x0)
    return float(max(0, height) * max(0, width))


def _overlapping(
    rng: np.random.Generator, height: int, width: int, crop: Crop, sampler: Overlapping, earlier: ViewGeometry
) -> ViewGeometry:
    """A try is 23 numbers."""

    def share(tried: ViewGeometry) -> float:
        area = tried.h * tried.w
        return overlap(tried, earlier) / (max(area, earlier.h * earlier.w) if sampler.of == "larger" else area)

    return _best(lambda: random_geometry(rng, height, width, crop), share, sampler.share, sampler.tries)


def _best(
    draw: Callable[[], ViewGeometry], score: Callable[[ViewGeometry], float], enough: float, tries: int
) -> ViewGeometry:
    """The first with enough, else the first of those with the most."""
    best, most = None, -1.0
    for _ in range(tries):
        tried = draw()
        value = score(tried)
        if value >= enough:
            return tried
        if value > most:
            best, most = tried, value
    assert best is not None
    return best


def _one_of(rng: np.random.Generator, boxes: NDArray[Any], height: int, width: int) -> Box:
    """One number."""
    which = rng.random()
    if not len(boxes):
        return 0.0, 0.0, float(width), float(height)
    x, y, w, h = (float(value) for value in boxes[int(which * len(boxes))])
    return x, y, w, h


def _around(
    rng: np.random.Generator, height: int, width: int, crop: Crop, sampler: AroundBox, box: Box
) -> ViewGeometry:
    """One number for the mirror, then four a try: area, ratio, x, y."""
    flip = bool(rng.random() < crop.flip)
    x, y, w, h = box
    centre_x, centre_y = x + w / 2, y + h / 2
    low, high = (math.log(value) for value in sampler.ratio)
    for area_at, ratio_at, x_at, y_at in rng.random((sampler.tries, 4)).tolist():
        area = w * h * (sampler.area[0] + (sampler.area[1] - sampler.area[0]) * area_at)
        ratio = math.exp(low + (high - low) * ratio_at)
        new_w, new_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        x0 = round(centre_x + (2 * x_at - 1) * sampler.shift * w - new_w / 2)
        y0 = round(centre_y + (2 * y_at - 1) * sampler.shift * h - new_h / 2)
        if not (new_w > 0 and new_h > 0 and 0 <= x0 <= width - new_w and 0 <= y0 <= height - new_h):
            continue
        common = max(0.0, min(x + w, x0 + new_w) - max(x, x0)) * max(0.0, min(y + h, y0 + new_h) - max(y, y0))
        if common > sampler.iou * (w * h + new_w * new_h - common):
            return ViewGeometry(y0, x0, new_h, new_w, flip, height, width)
    return ViewGeometry(int(y), int(x), int(h), int(w), flip, height, width)


def _salient(
    rng: np.random.Generator, height: int, width: int, crop: Crop, sampler: Salient, saliency: NDArray[Any]
) -> ViewGeometry:
    """One number for the mirror, then four a try: area, ratio, x, y. Without salient pixels what ``Free`` draws."""
    salient = saliency > SALIENT
    if not salient.any():
        return random_geometry(rng, height, width, crop)
    flip = bool(rng.random() < crop.flip)
    rows, columns = salient.sum(1).astype(np.float64), salient.sum(0).astype(np.float64)
    total = float(rows.sum())
    cell_h, cell_w = height / len(rows), width / len(columns)
    centre_y = float(rows @ (np.arange(len(rows)) + 0.5)) / total * cell_h
    centre_x = float(columns @ (np.arange(len(columns)) + 0.5)) / total * cell_w
    enough = min(sampler.share, sampler.share * salient.size / total)
    low, high = (math.log(value) for value in crop.ratio)
    for area_at, ratio_at, x_at, y_at in rng.random((sampler.tries, 4)).tolist():
        area = height * width * (crop.area[0] + (crop.area[1] - crop.area[0]) * area_at)
        ratio = math.exp(low + (high - low) * ratio_at)
        w = min(width, max(1, round(math.sqrt(area * ratio))))
        h = min(height, max(1, round(math.sqrt(area / ratio))))
        x0 = round(_truncated(x_at, centre_x, width, w / 2) - w / 2)
        y0 = round(_truncated(y_at, centre_y, height, h / 2) - h / 2)
        tried = ViewGeometry(min(max(y0, 0), height - h), min(max(x0, 0), width - w), h, w, flip, height, width)
        if covered(salient, tried) >= enough:
            return tried
    y0, y1 = _extent(rows, cell_h)
    x0, x1 = _extent(columns, cell_w)
    return ViewGeometry(y0, x0, y1 - y0, x1 - x0, flip, height, width)


def covered(salient: NDArray[np.bool_], geometry: ViewGeometry) -> float:
    """Share of a map's salient area, bool (h, w) with one cell at least, that a crop shows."""
    g = geometry
    rows = _shown(g.y0, g.h, g.image_h, salient.shape[0])
    columns = _shown(g.x0, g.w, g.image_w, salient.shape[1])
    return float(rows @ salient @ columns) / float(salient.sum())


def _shown(start: int, length: int, image: int, cells: int) -> NDArray[np.float64]:
    """Share of each cell along an axis that lies in the crop."""
    edges = np.arange(cells + 1) * (image / cells)
    inside: NDArray[np.float64] = np.clip(edges, start, start + length)
    shares: NDArray[np.float64] = np.diff(inside) * (cells / image)
    return shares


def _truncated(u: float, centre: float, side: int, margin: float) -> float:
    """Quantile u of a Gaussian round the centre with deviation ``side``, cut off at ``margin`` from both ends."""
    if side - margin <= margin:
        return side / 2
    gauss = NormalDist(centre, side)
    low, high = gauss.cdf(margin), gauss.cdf(side - margin)
    return gauss.inv_cdf(low + (high - low) * u)


def _extent(counts: NDArray[np.float64], cell: float) -> tuple[int, int]:
    """First pixel and the one after the last of the cells that count."""
    present = np.flatnonzero(counts)
    return math.floor(present[0] * cell), math.ceil((present[-1] + 1) * cell - 1e-9)
