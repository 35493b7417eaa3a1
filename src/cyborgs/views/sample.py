"""All views of one image. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cyborgs.data.decode import Pixels
from cyborgs.structures import MAX_LABELS, ViewGeometry
from cyborgs.views.config import ViewSpec
from cyborgs.views.geometry import crop_resize
from cyborgs.views.labels import Labels, grid_labels
from cyborgs.views.photometric import apply_photometry, random_photometry
from cyborgs.views.sampling import draw_geometries


@dataclass(frozen=True)
class Photo:
    """A photo, and what is known of it."""

    image: Pixels
    """uint8 (H, W, 3), RGB."""
    labels: Labels | None = None
    """uint8 (h, w), its label map."""
    prepared: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """By an artefact's name: boxes, int (n, 4) of x, y, width, height; saliency, uint8 (h, w); neighbours, int (k,)."""
    index: int = 0
    """Its number among the photos."""


@dataclass(frozen=True)
class OneView:
    """One view of one image."""

    image: Pixels
    """uint8 (3, S, S), RGB."""
    geometry: ViewGeometry
    """Numbers."""
    labels: Labels | None
    """uint8 (g, g), or None without a label map."""
    photo: Photo
    """What it shows: the sample's photo, or a neighbour."""


def make_views(
    photo: Photo,
    spec: ViewSpec,
    rng: np.random.Generator,
    *,
    read: Callable[[int], Photo] | None = None,
    into: list[Pixels] | None = None,
) -> tuple[tuple[OneView, ...], NDArray[np.uint8]]:
    """The views of a photo, and its random order of all 256 labels (uint8).

    Draws, always as many and in this order: label order, which neighbour is shown (one number for each name of
    neighbours among the crops), geometry of each view (``views/sampling.py``), colours of each view. So a label map, or
    a setting of the colours, leaves every crop where it is.

    Args:
        photo: the sample's photo, with the prepared artefacts that the crops need.
        spec: the views.
        rng: the sample's generator.
        read: gives a neighbour by its number.
        into: uint8 (3, S, S) arrays, one a view, that the pixels are written to.
    """
    order = rng.permutation(MAX_LABELS).astype(np.uint8)
    shown = {"own": photo}
    for name in dict.fromkeys(crop.photo for crop in spec.crops if crop.photo != "own"):
        which, near = rng.random(), photo.prepared[name]
        assert read is not None
        shown[name] = read(int(near[int(which * len(near))])) if len(near) else photo
    photos = [shown[crop.photo] for crop in spec.crops]
    sizes = [(one.image.shape[0], one.image.shape[1]) for one in photos]
    geometries = draw_geometries(rng, spec.crops, sizes, [one.prepared for one in photos])
    colours = [random_photometry(rng, crop) for crop in spec.crops]
    views = []
    for v, (one, geometry, how) in enumerate(zip(photos, geometries, colours, strict=True)):
        size = spec.size_of(v)
        pixels = apply_photometry(crop_resize(one.image, geometry, size, spec.interpolation), how)
        planes = np.empty((3, size, size), np.uint8) if into is None else into[v]
        cv2.split(pixels, [planes[0], planes[1], planes[2]])
        labels = None if one.labels is None else grid_labels(one.labels, geometry, size, spec.grid_of(v))
        views.append(OneView(planes, geometry, labels, one))
    return tuple(views), order
