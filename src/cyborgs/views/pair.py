"""All views of one image. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.data.decode import Pixels
from cyborgs.structures import MAX_LABELS, ViewGeometry
from cyborgs.views.config import ViewSpec
from cyborgs.views.geometry import crop_resize, random_geometry
from cyborgs.views.labels import Labels, grid_labels
from cyborgs.views.photometric import apply_photometry, random_photometry


@dataclass(frozen=True)
class OneView:
    """One view of one image."""

    image: Pixels
    """uint8 (3, S, S), RGB."""
    geometry: ViewGeometry
    """Numbers."""
    labels: Labels | None
    """uint8 (g, g), or None without a label map."""


def make_views(
    image: Pixels,
    label_map: Labels | None,
    spec: ViewSpec,
    rng: np.random.Generator,
    *,
    into: list[Pixels] | None = None,
) -> tuple[tuple[OneView, ...], NDArray[np.uint8]]:
    """The views of a uint8 (H, W, 3) image, and its random order of all 256 labels (uint8).

    Draws, always as many and in this order: label order, geometry of each view, colours of each view. So a label map,
    or a setting of the colours, leaves every crop where it is. ``into``: uint8 (3, S, S) arrays, one a view, that
    the pixels are written to.
    """
    order = rng.permutation(MAX_LABELS).astype(np.uint8)
    height, width, _ = image.shape
    geometries = [random_geometry(rng, height, width, crop) for crop in spec.crops]
    colours = [random_photometry(rng, crop) for crop in spec.crops]
    views = []
    for v, (crop, geometry, how) in enumerate(zip(spec.crops, geometries, colours, strict=True)):
        size = crop.size or spec.size
        pixels = apply_photometry(crop_resize(image, geometry, size, spec.interpolation), how)
        planes = np.empty((3, size, size), np.uint8) if into is None else into[v]
        cv2.split(pixels, [planes[0], planes[1], planes[2]])
        labels = None if label_map is None else grid_labels(label_map, geometry, size, spec.grid)
        views.append(OneView(planes, geometry, labels))
    return tuple(views), order
