"""Masks of photos by any source of masks, written as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.images import Images
from cyborgs.data.palette import nearest
from cyborgs.features.extraction import Progress, UInt8
from cyborgs.features.threads import Hands, threads_by_default
from cyborgs.masks.source import MaskSource
from cyborgs.segmenting.folder import SegmentFolder
from cyborgs.segmenting.names import mask_names
from cyborgs.segmenting.segment import Exports, Ids, no_exports, write_photo

PIECE_PIXELS = 16 * 640 * 480
"""Pixels of photos that are held at once for a source that looks at each photo by itself."""


def segment_source(
    images: Images,
    source: MaskSource,
    out: Path | str,
    *,
    ids: Ids,
    seed: int = 0,
    labels: int = 0,
    overlays: bool = True,
    exports: Exports = no_exports,
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> bool:
    """Write the masks of any source, enlarged to the photos' size (nearest); files and resuming as ``segment``.

    False where all was done already.

    Args:
        images: what is labelled.
        source: of masks.
        out: a folder; made where it is missing.
        ids: how far a label means the same: in all photos, in a group or in one photo.
        seed: of the source.
        labels: where ids are those of the data set: how many there are.
        overlays: write them too.
        exports: formats beside the PNGs.
        settings: what decides what is written, the source's name among it.
        about: what ``segmentation.json`` says beside.
        overwrite: begin anew in a folder of other settings.
        threads: that decode, and as many that write; None: up to 4 each; 0: none.
        progress: called with photos done and in all.

    Raises:
        UserError: the folder holds something else.
    """
    chosen = {
        "source": source.name,
        "identity": getattr(source, "identity", None),  # of sources that are made from files of their own
        "seed": seed,
        "overlays": overlays,
        "photos": images.fingerprint(),
        **(settings or {}),
    }
    folder = SegmentFolder(
        Path(out), chosen, exports(labels), labels=labels or None, overlays=overlays, overwrite=overwrite
    )
    if folder.complete:
        return False
    facts = {"source": source.name, "ids": ids, "void": source.void, "photos": len(images), **(about or {})}
    names = mask_names([images.name(i) for i in range(len(images))])
    threads = threads_by_default() if threads is None else threads
    try:
        folder.open(facts)
        done = frozenset(folder.done)
        finished = len(done)
        groups = source.groups(len(images), seed, 0)
        work = [(g, piece) for g, group in enumerate(groups) for piece in _pieces(source, images, ids, group)]
        work = [(g, piece) for g, piece in work if any(i not in done for i in piece)]
        with Hands(threads) as hands, ThreadPoolExecutor(max(1, threads), thread_name_prefix="decode") as pool:

            def read(i: int) -> UInt8:
                return source.prepare(images.read(i))

            def start(piece: Sequence[int]) -> list[Future[UInt8]]:
                if not source.needs_images:
                    return []
                return [pool.submit(read, i) for i in piece]

            pending = start(work[0][1]) if work else []
            for turn, (g, piece) in enumerate(work):
                pictures = [p.result() for p in pending] or [np.empty((0, 0, 3), np.uint8)] * len(piece)
                pending = start(work[turn + 1][1]) if turn + 1 < len(work) else []
                maps = source.label(pictures, seed, 0, g)
                for i, label_map in zip(piece, maps, strict=True):
                    if i in done:
                        continue
                    full = nearest(label_map.labels, *images.size(i))
                    hands.do(full.size, write_photo, folder, images, i, names[i], full, None, None, label_map.void)
                    finished += 1
                    if progress is not None:
                        progress(finished, len(images))
        folder.finish(facts)
    finally:
        folder.close()
    return True


def _pieces(source: MaskSource, images: Images, ids: Ids, group: NDArray[np.int64]) -> list[list[int]]:
    """A group as it is, or, where each photo is labelled from its own pixels, in pieces that memory holds."""
    if ids != "photo" or not source.needs_images:
        return [group.tolist()]
    pieces: list[list[int]] = [[]]
    room = PIECE_PIXELS
    for i in group.tolist():
        height, width = images.size(i)
        room -= height * width
        if room < 0 and pieces[-1]:
            pieces.append([])
            room = PIECE_PIXELS - height * width
        pieces[-1].append(i)
    return pieces
