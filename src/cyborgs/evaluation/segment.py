"""Masks of photos in one id space: label PNGs at the photos' size, overlays, and what share each cluster has."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cyborgs.data.palette import overlay, palette
from cyborgs.data.scenes import write_label_png
from cyborgs.evaluation.clustering import Clusters, assign, cluster_images
from cyborgs.evaluation.features import Photos, Progress

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


class _Sized(Photos, Protocol):
    def size(self, i: int) -> tuple[int, int]:
        """Size (h, w) of photo i."""
        ...


def mask_names(names: Sequence[str]) -> list[str]:
    """A PNG path below the output folder for each photo: its own relative path, with the suffix .png.

    Parts that would lead out of the folder are dropped. Photos that differ in suffix alone, or in nothing that is
    left, keep their suffix (``a.jpg.png``) or get a number, so that no two photos share a mask, and no mask has the
    name of a folder, whatever the file system thinks of upper and lower case and of the ways to write an accent.
    The same holds for the overlays, whose suffix is .jpg.
    """
    cleaned = []
    for name in names:
        path = PurePosixPath(name)
        parts = [p for p in path.parts if p not in (path.anchor, "..")]  # the anchor may be two slashes
        cleaned.append(PurePosixPath(*parts) if parts else PurePosixPath("photo"))
    folders = {_same(str(folder)) for path in cleaned for folder in path.parents}
    plain = [str(p.with_suffix(".png")) for p in cleaned]
    often = Counter(_same(text) for text in plain)
    used: set[str] = set()

    def taken(candidate: str) -> bool:
        overlay_of = candidate.removesuffix(".png") + ".jpg"
        return _same(candidate) in used or bool({_same(candidate), _same(overlay_of)} & folders)

    out = []
    for path, text in zip(cleaned, plain, strict=True):
        candidate = text if often[_same(text)] == 1 else f"{path}.png"
        number = 1
        while taken(candidate):
            number += 1
            candidate = f"{path}.{number}.png"
        used.add(_same(candidate))
        out.append(candidate)
    return out


def _same(path: str) -> str:
    """Equal for paths that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def segment(
    images: _Sized,
    backbone: Backbone,
    out: Path | str,
    *,
    layers: Sequence[str],
    clusters: int,
    seed: int = 0,
    short_side: int = 0,
    overlays: bool = True,
    max_points: int = 200_000,
    progress: Progress | None = None,
) -> Clusters:
    """Cluster the pixels of all photos together and write one mask per photo; the clusters, as used.

    Written below ``out``: ``labels/<photo>.png`` (8-bit, palette, at the photo's size), ``overlays/<photo>.jpg``,
    ``palette.json`` (colour of each cluster) and ``segments.csv`` (share of each cluster's pixels per photo; written
    last).

    Args:
        images: ``data.images.Images``.
        backbone: whose features are clustered.
        out: a folder; made where it is missing. Files of the same names are replaced.
        layers: what is clustered.
        clusters: 2 to 256.
        seed: of the clustering.
        short_side: longest allowed short side of what the network sees, in pixels; 0: native size.
        overlays: write them too.
        max_points: as in ``cluster_images``.
        progress: called with passes over photos done and in all; each photo is read twice.
    """
    from PIL import Image

    out = Path(out)
    total = 2 * len(images)
    first_pass: Progress | None = None if progress is None else lambda done, _: progress(done, total)
    found = cluster_images(
        backbone,
        images,
        layers=layers,
        k=clusters,
        seed=seed,
        short_side=short_side,
        max_points=max_points,
        progress=first_pass,
    )
    names = mask_names([images.name(i) for i in range(len(images))])
    out.mkdir(parents=True, exist_ok=True)
    used = len(found.centroids)
    colours = {str(c): [int(v) for v in rgb] for c, rgb in enumerate(palette(used))}
    (out / "palette.json").write_text(json.dumps(colours, indent=1) + "\n", encoding="utf-8")
    rows = []
    for i, name in enumerate(names):
        image = images.read(i)
        labels = assign(backbone, found, image, full_resolution=True)
        target = out / "labels" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_label_png(target, labels)
        if overlays:
            target = (out / "overlays" / name).with_suffix(".jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(overlay(image, labels)).save(target, quality=90)
        rows.append(np.bincount(labels.ravel(), minlength=used) / labels.size)
        if progress is not None:
            progress(len(images) + i + 1, total)
    with open(out / "segments.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", "mask", *(f"cluster {c}" for c in range(used))])
        for i, (name, shares) in enumerate(zip(names, rows, strict=True)):
            writer.writerow([images.name(i), f"labels/{name}", *(f"{share:.6f}" for share in shares)])
    return found
