"""Nearest regions of other photos, by what the network makes of them: seen without any label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.features.extraction import UInt8, iterate_maps
from cyborgs.ops.normalise import unit_rows

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

Mask = NDArray[np.bool_]

PHOTOS: Final = 200
"""Photos that are searched, at most."""
PIXELS: Final = 160_000_000
"""Pixels that are decoded for a search, about: fewer photos where they are large, but no fewer than FEWEST."""
FEWEST: Final = 24
SHORT_SIDE: Final = 128
"""Longest short side of a photo for the network, in pixels."""
SHARES: Final = (0.02, 0.15, 0.6)
"""Smallest, best and largest share of its photo that a region has: no slivers, not all of it."""


@dataclass(frozen=True)
class Crop:
    """A region cut out of its photo, its outline drawn."""

    name: str
    """Of the photo."""
    image: UInt8
    """uint8 (h, w, 3)."""
    similarity: float | None = None
    """Cosine with the query, the mean of all regions taken away; None: it is the query."""


@dataclass(frozen=True)
class Neighbours:
    """A region and those of other photos that are nearest to it, the nearest first."""

    query: Crop
    found: tuple[Crop, ...]


@dataclass(frozen=True)
class Search:
    """What a search found."""

    rows: tuple[Neighbours, ...]
    photos: int
    """Photos that were searched."""
    regions: int
    """Regions that were compared."""
    similarity: float
    """Mean cosine of a region with the nearest one of another photo."""
    similarity_any: float
    """Mean cosine of two regions of different photos: near the other figure where all looks alike."""


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of the numbers 0..count-1, evenly spread, first and last among them."""
    if count <= wanted:
        return list(range(count))
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


def searched(photos: Images) -> list[int]:
    """The photos that a search looks at: evenly spread, few enough to be decoded in seconds."""
    first = spread(len(photos), PHOTOS)
    pixels = sum(h * w for h, w in map(photos.size, first)) / max(1, len(first))
    return spread(len(photos), min(PHOTOS, max(FEWEST, int(PIXELS / max(1.0, pixels)))))


def regions_of(labels: UInt8, most: int = 6) -> list[Mask]:
    """Connected pieces of a label map (h, w) that are neither slivers nor nearly all of it, bool (h, w).

    Those of middling size first, at most ``most``; the whole photo where there is none.
    """
    pieces: list[tuple[float, int, Mask]] = []
    smallest, best, largest = SHARES
    for label in np.unique(labels).tolist():
        count, parts = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)
        shares = np.bincount(parts.ravel(), minlength=count) / labels.size
        for part in range(1, count):
            if smallest <= shares[part] <= largest:
                pieces.append((abs(float(np.log(shares[part] / best))), len(pieces), parts == part))
    pieces.sort(key=lambda piece: piece[:2])
    return [piece for _, _, piece in pieces[:most]] or [np.ones(labels.shape, bool)]


def compared_layers(backbone: Backbone) -> tuple[str, ...]:
    """The last maps of strides 8, 16 and 32, or those that the network returns by itself."""
    try:
        return backbone.default_layers()
    except UserError:
        return backbone.layers


def region_features(
    backbone: Backbone, photos: Images, regions: Mapping[int, Sequence[Mask]], layers: Sequence[str]
) -> Tensor:
    """Mean of each layer's map over each region, of unit length in each layer, side by side.

    float32 (regions, sum of widths), photo by photo in the order of ``regions``. A region at the edge of a cell
    counts for the part of the cell that it covers.
    """
    found: dict[int, Tensor] = {}
    indices = [i for i, masks in regions.items() if masks]
    for i, _, maps in iterate_maps(backbone, photos, layers, indices=indices, short_side=SHORT_SIDE):
        masks = torch.from_numpy(np.stack(regions[i])).float()
        parts = []
        for name in layers:
            m = maps[name]
            weights = F.adaptive_avg_pool2d(masks[None], (m.shape[1], m.shape[2]))[0].flatten(1)
            parts.append(unit_rows(weights @ m.flatten(1).T / weights.sum(1, keepdim=True).clamp_min(1e-12)))
        found[i] = torch.cat(parts, 1) / len(layers) ** 0.5
    return torch.cat([found[i] for i in indices])


def search(
    backbone: Backbone,
    photos: Images,
    labels: Callable[[int], UInt8],
    *,
    queries: int = 6,
    neighbours: int = 5,
    side: int = 112,
) -> Search | None:
    """Regions of a few photos and their nearest ones in others; the same every time. Some seconds on two cores.

    Args:
        backbone: in eval mode or not; left as it was.
        photos: all photos; a part of them is searched.
        labels: the label map of a photo, uint8 (h, w) of any size.
        queries: photos with a query, evenly spread.
        neighbours: regions shown for each query, one of each photo at most.
        side: the longer side of a crop, in pixels.

    Returns:
        None where there are fewer than two photos.
    """
    chosen = searched(photos)
    if len(chosen) < 2:
        return None
    regions = {i: regions_of(labels(i)) for i in chosen}
    owner = torch.tensor([i for i in chosen for _ in regions[i]])
    place = [(i, k) for i in chosen for k in range(len(regions[i]))]
    features = region_features(backbone, photos, regions, compared_layers(backbone))
    other = owner[:, None] != owner[None, :]
    cosines = features @ features.T
    nearest_one = cosines.masked_fill(~other, -2.0).max(1).values
    # What all regions have in common says nothing of which are alike.
    centred = unit_rows(features - features.mean(0))
    rows = []
    crops = _Crops(photos, side)
    for i in spread(len(chosen), queries):
        row = next(r for r, (photo, _) in enumerate(place) if photo == chosen[i])
        similar = (centred @ centred[row]).masked_fill(~other[row], -2.0)
        found: dict[int, tuple[int, float]] = {}
        for candidate in torch.argsort(similar, descending=True, stable=True).tolist():
            photo, _ = place[candidate]
            if photo != chosen[i] and photo not in found:
                found[photo] = candidate, float(similar[candidate])
            if len(found) == neighbours:
                break
        near = [
            crops.cut(photo, regions[photo][place[candidate][1]], cosine)
            for photo, (candidate, cosine) in found.items()
        ]
        rows.append(Neighbours(crops.cut(chosen[i], regions[chosen[i]][0], None), tuple(near)))
    return Search(
        tuple(rows), len(chosen), len(place), float(nearest_one.mean()), float(cosines[other].double().mean())
    )


class _Crops:
    """Cuts regions out of photos."""

    def __init__(self, photos: Images, side: int) -> None:
        self.photos = photos
        self.side = side

    def cut(self, photo: int, region: Mask, similarity: float | None) -> Crop:
        return Crop(self.photos.name(photo), crop(self.photos.read(photo), region, self.side), similarity)


def crop(image: UInt8, region: Mask, side: int) -> UInt8:
    """The region's surroundings in a photo (H, W, 3), the longer side ``side`` pixels, the region's outline drawn.

    The outline is white within black, so that it shows on any ground. ``region`` bool (h, w), of any size.
    """
    height, width = image.shape[:2]
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    box = np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1], float)
    box *= np.repeat([height / region.shape[0], width / region.shape[1]], 2)
    margin = 0.15 * max(box[1] - box[0], box[3] - box[2])
    top, bottom = max(0, round(box[0] - margin)), min(height, round(box[1] + margin))
    left, right = max(0, round(box[2] - margin)), min(width, round(box[3] + margin))
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    factor = side / max(bottom - top, right - left)
    size = max(1, round((bottom - top) * factor)), max(1, round((right - left) * factor))
    shown = cv2.resize(
        image[top:bottom, left:right],
        (size[1], size[0]),
        interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR,
    )
    # The region at the crop's pixels, its cells' corners rounded; specks would hide what the outline shows.
    across = size[1] / (right - left) * width / region.shape[1]
    down = size[0] / (bottom - top) * height / region.shape[0]
    onto = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
    onto[:, 2] -= left * size[1] / (right - left), top * size[0] / (bottom - top)
    soft = cv2.warpAffine(region.astype(np.float32), onto, (size[1], size[0]), borderMode=cv2.BORDER_REPLICATE)
    found, _ = cv2.findContours((soft >= 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outlines = [line for line in found if cv2.contourArea(line) >= 0.005 * size[0] * size[1]]
    out: UInt8 = np.ascontiguousarray(shown, np.uint8)
    cv2.drawContours(out, outlines, -1, (0, 0, 0), 3)
    cv2.drawContours(out, outlines, -1, (255, 255, 255), 1)
    return out


def sheet(rows: Sequence[Neighbours], side: int) -> UInt8:
    """All crops in one picture, a row for each query, the query first and set apart: uint8 (H, W, 3) on grey."""
    gap, apart = 6, 18
    columns = 1 + max(len(row.found) for row in rows)
    picture = np.full((len(rows) * (side + gap) - gap, columns * (side + gap) - gap + apart, 3), 128, np.uint8)
    for r, row in enumerate(rows):
        for c, one in enumerate((row.query, *row.found)):
            height, width = one.image.shape[:2]
            top = r * (side + gap) + (side - height) // 2
            left = c * (side + gap) + (apart if c else 0) + (side - width) // 2
            picture[top : top + height, left : left + width] = one.image
    return picture
