"""Masks of photos: clusters of features in one id space, or the regions of any source of masks; written as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from safetensors.torch import save

from cyborgs.data.decode import orientation
from cyborgs.data.images import Images
from cyborgs.data.palette import nearest
from cyborgs.errors import UserError
from cyborgs.features.clustering import Clusters, cluster_photos
from cyborgs.features.extraction import Progress, UInt8, stream_maps
from cyborgs.features.threads import Hands, threads_by_default
from cyborgs.files import write_bytes
from cyborgs.masks.config import CrfConfig
from cyborgs.masks.crf import refine, require_crf
from cyborgs.models.initial import KEY, read_safetensors
from cyborgs.ops.enlarge import Enlarged, of_cells
from cyborgs.ops.streaming_kmeans import SAMPLE_BYTES
from cyborgs.segmenting.folder import CENTROIDS, Export, SegmentFolder
from cyborgs.segmenting.names import mask_names
from cyborgs.structures import PhotoMask

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

Ids = Literal["dataset", "group", "photo"]
Resolution = Literal["full", "nearest"]
Exports = Callable[[int], Sequence[Export]]
"""K of a clustering, or 0 -> the formats to write beside the label PNGs."""


def no_exports(clusters: int) -> Sequence[Export]:
    """Label PNGs alone."""
    return ()


def segment(
    images: Images,
    backbone: Backbone,
    out: Path | str,
    *,
    layers: Sequence[str],
    clusters: int | Sequence[int],
    seed: int = 0,
    short_side: int = 0,
    resolution: Resolution = "full",
    crf: CrfConfig | None = None,
    overlays: bool = True,
    exports: Exports = no_exports,
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    sample_bytes: int = SAMPLE_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[int, Clusters | None]:
    """Cluster the pixels of all photos together and write one mask a photo; the clusters by K, None where all was done.

    Each photo goes through the network at most twice, whatever the number of Ks: for a uniform sample of all cells
    (``ops/streaming_kmeans.py``), and for its masks. Memory does not grow with the photos.

    Written below ``out``, or below ``out/k<K>`` for several K: ``labels/<photo>.png`` (8-bit, palette, at the photo's size),
    ``overlays/<photo>.jpg``, ``palette.json``, ``centroids.safetensors``, what ``exports`` give, ``segmentation.json``
    and, last, ``segments.csv`` (share of each cluster's pixels per photo). A start with the same settings goes on.

    Args:
        images: what is labelled.
        backbone: whose features are clustered.
        out: a folder; made where it is missing.
        layers: what is clustered.
        clusters: one K or several, 2 to 256 each.
        seed: of the sample and the clustering.
        short_side: longest allowed short side of what the network sees, in pixels; 0: native size.
        resolution: full: the cluster nearest to a pixel's bilinear feature; nearest: that of its cell.
        crf: refine each mask (at full resolution).
        overlays: write them too.
        exports: formats beside the PNGs.
        settings: what else decides what is written; a folder where it differs is refused.
        about: what ``segmentation.json`` says beside.
        overwrite: begin anew in a folder of other settings.
        sample_bytes: memory of the sample.
        threads: that decode, and as many that write; None: up to 4 each; 0: none.
        progress: called with passes over photos done and in all.

    Raises:
        UserError: the folder holds something else; more clusters than cells; the CRF's extra is missing.
        ValueError: K outside 2 to 256; ``crf`` without full resolution.
    """
    ks = (clusters,) if isinstance(clusters, int) else tuple(dict.fromkeys(clusters))
    wrong = [k for k in ks if not 2 <= k <= 256]
    if wrong or not ks:
        raise UserError(f"clusters: need 2 to 256 (a label map is 8-bit), got {wrong[0] if wrong else 'none'}")
    if crf is not None and resolution != "full":
        raise UserError("crf: works on pixels, so it needs --resolution full")
    if crf is not None:
        require_crf()  # now, not after a pass over all photos
    out = Path(out)
    chosen = {
        "source": "clusters",
        "layers": list(layers),
        "seed": seed,
        "short_side": short_side,
        "resolution": resolution,
        "overlays": overlays,
        "sample_bytes": sample_bytes,
        "crf": None if crf is None else vars(crf),
        "photos": images.fingerprint(),
        **(settings or {}),
    }
    folders = {}
    for k in ks:
        path = out if len(ks) == 1 else out / f"k{k}"
        own = {**chosen, "clusters": k}
        folders[k] = SegmentFolder(path, own, exports(k), labels=k, overlays=overlays, overwrite=overwrite)
    facts = {
        "source": "clusters",
        "ids": "dataset",
        "void": None,
        "layers": list(layers),
        "photos": len(images),
        **(about or {}),
    }
    open_folders = {k: f for k, f in folders.items() if not f.complete}
    found: dict[int, Clusters | None] = dict.fromkeys(ks)
    total = 2 * len(images)
    try:
        for k, folder in open_folders.items():
            folder.open({**facts, "clusters": k})
            found[k] = _read_clusters(folder.path, tuple(layers), short_side, k)
        missing = [k for k in open_folders if found[k] is None]
        if missing:
            first: Progress | None = None if progress is None else lambda done, _: progress(done, total)
            fresh = cluster_photos(
                backbone, images, missing, layers=layers, seed=seed, short_side=short_side,
                sample_bytes=sample_bytes, threads=threads, progress=first,
            )  # fmt: skip
            for k in missing:
                _write_clusters(open_folders[k].path, fresh[k])
                open_folders[k].done.clear()  # of other centroids: a power cut may have taken them
            found.update(fresh)
        if open_folders:
            _label_all(images, backbone, open_folders, found, resolution, crf, threads, progress)
        for k, folder in open_folders.items():
            one = found[k]
            assert one is not None
            folder.finish({**facts, "clusters": k, "points": one.points, "cosine": one.cosine})
    finally:
        for folder in open_folders.values():
            folder.close()
    return found


def _label_all(
    images: Images,
    backbone: Backbone,
    folders: Mapping[int, SegmentFolder],
    found: Mapping[int, Clusters | None],
    resolution: Resolution,
    crf: CrfConfig | None,
    threads: int | None,
    progress: Progress | None,
) -> None:
    """Features once a photo, labels for each K, files in threads."""
    names = mask_names([images.name(i) for i in range(len(images))])
    one = next(c for c in found.values() if c is not None)
    done = {k: frozenset(folder.done) for k, folder in folders.items()}
    finished = len(images) + sum(all(i in d for d in done.values()) for i in range(len(images)))

    def wanted(i: int) -> bool:
        return any(i not in d for d in done.values())

    with Hands(threads_by_default() if threads is None else threads) as hands:
        stream = stream_maps(backbone, images, one.layers, short_side=one.short_side, wanted=wanted, threads=threads)
        for i, image, joined in stream:
            for k, folder in folders.items():
                clusters = found[k]
                if i in done[k] or clusters is None:
                    continue
                size = image.shape[:2]
                if resolution == "nearest":
                    cells, near = of_cells(clusters.centroids, joined)
                    labels, cosine = nearest(cells, *size), nearest(near, *size)
                    hands.do(labels.size, write_photo, folder, images, i, names[i], labels, cosine, image)
                    continue
                pixels = Enlarged(clusters.centroids, joined, *size)
                labels, cosine = pixels.labels()
                if crf is None:
                    hands.do(labels.size, write_photo, folder, images, i, names[i], labels, cosine, image)
                    continue
                present = np.unique(labels)
                hands.do(
                    labels.size, _refine, folder, images, i, names[i], pixels.cosines(present), present, crf, image
                )
            finished += 1
            if progress is not None:
                progress(finished, 2 * len(images))


def _refine(
    folder: SegmentFolder,
    images: Images,
    i: int,
    name: str,
    cosines: Any,
    present: Any,
    crf: CrfConfig,
    image: UInt8,
) -> None:
    """By the CRF over the labels that are present; the cosine is that of the label which a pixel ends with."""
    local = refine(image, cosines, crf)
    cosine = np.take_along_axis(cosines, local[None].astype(np.int64), axis=0)[0]
    write_photo(folder, images, i, name, present.astype(np.uint8)[local], cosine, image)


def write_photo(
    folder: SegmentFolder,
    images: Images,
    i: int,
    name: str,
    labels: UInt8,
    cosine: Any = None,
    image: UInt8 | None = None,
    void: int | None = None,
) -> None:
    """Write a photo's files; the photo is read where an overlay needs it. Called in threads."""
    if image is None and folder.overlays:
        image = images.read(i)
    turned = orientation(images.content(i)) if folder.exports else 1
    folder.add(PhotoMask(i, images.name(i), name, labels, cosine, void, turned), image)


def _write_clusters(path: Path, clusters: Clusters) -> None:
    # One entry: safetensors writes several in random order.
    metadata = {KEY: json.dumps({"points": clusters.points, "cosine": clusters.cosine, "layers": clusters.layers})}
    write_bytes(path / CENTROIDS, save({"centroids": clusters.centroids.contiguous()}, metadata))


def _read_clusters(path: Path, layers: tuple[str, ...], short_side: int, k: int) -> Clusters | None:
    """Of an earlier start; None where it did not come so far, or the file is damaged."""
    try:
        tensors, known = read_safetensors(path / CENTROIDS)
        centroids = tensors["centroids"]
        if known is None or len(centroids) != k:
            return None
        return Clusters(centroids, layers, short_side, int(known["points"]), float(known["cosine"]))
    except (OSError, KeyError, TypeError, ValueError):
        return None
