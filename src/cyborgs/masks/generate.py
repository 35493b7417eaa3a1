"""A mask source applied to a whole data set: images -> one generation of the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.machine.cores import usable_cores
from cyborgs.masks.source import MaskSource
from cyborgs.masks.store import GenerationWriter
from cyborgs.structures import LabelMap

_NO_IMAGE = np.empty((0, 0, 3), np.uint8)


def generate(
    source: MaskSource,
    images: Images,
    path: str | Path,
    generation: int,
    *,
    seed: int,
    cycle: int,
    manifest: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    threads: int | None = None,
) -> bool:
    """Label all images and make the maps the store's current generation.

    A collective call: group g is labelled by rank g % world, so the result does not depend on the number of
    processes. All processes return together.

    Args:
        source: what makes the maps.
        images: the data set; not read where the source needs no images.
        path: the run's folder or its ``masks/``.
        generation: number of the new generation, after the current one.
        seed: the run's seed.
        cycle: number of the bootstrapping: other groups and clusters in each.
        manifest: what the maps are made from, kept beside them.
        progress: called with (groups done by all processes, all groups), starting at 0.
        stopped: asked before each group; True on any process ends the work (of the others some groups later).
        threads: that decode the next group while this one is labelled; by default up to 4.

    Returns:
        False where it was stopped: then the store is as before.

    Raises:
        RemoteFailure: another process failed. What fails in this one is raised as it is.
    """
    writer = _open_writer(path, generation, len(images), manifest)

    def write(group: int, indices: np.ndarray, maps: Sequence[LabelMap]) -> None:
        for index, label_map in zip(indices, maps, strict=True):
            writer.write(int(index), label_map)

    groups = list(enumerate(source.groups(len(images), seed, cycle)))
    try:
        finished = label_groups(
            source,
            images,
            groups,
            write,
            seed=seed,
            cycle=cycle,
            progress=progress,
            stopped=stopped,
            threads=threads,
        )
        if finished:
            distributed.all_or_none(writer.close)
            distributed.all_or_none(writer.publish if writer.rank == 0 else _nothing)
    except Exception:  # on all processes, see distributed.all_or_none
        _discard(writer)
        raise
    if not finished:
        _discard(writer)
    return finished


def label_groups(
    source: MaskSource,
    images: Images,
    groups: Sequence[tuple[int, np.ndarray]],
    write: Callable[[int, np.ndarray, list[LabelMap]], None],
    *,
    seed: int,
    cycle: int,
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    threads: int | None = None,
    done: int = 0,
    processes: int | None = None,
) -> bool:
    """Label some groups, each in one process; False where any process was asked to stop. A collective call.

    Args:
        source: what labels.
        images: read ahead by one group, where the source needs them.
        groups: numbers and indices of what is to be labelled.
        write: told (number, indices, maps) of each group that this process labelled.
        seed: the run's seed.
        cycle: number of the bootstrapping.
        progress: as in ``generate``; ``done`` groups count as done before.
        stopped: as in ``generate``.
        threads: as in ``generate``.
        done: groups of the source that had been labelled before.
        processes: the first so many share the work; None: all.
    """
    world, rank = processes or distributed.world_size(), distributed.rank()
    own = groups[rank::world] if rank < world else []
    total = done + len(groups)

    with _Decoder(source, images, threads or min(4, usable_cores())) as decoder:

        def label(turn: int) -> bool:
            """Whether to stop; else the maps of this process's group are written."""
            if progress is not None:
                progress(done + turn * world, total)
            if stopped is not None and stopped():
                return True
            if turn >= len(own):
                return False
            group, indices = own[turn]
            try:
                pictures = decoder.finish()
                if turn + 1 < len(own):
                    decoder.start(own[turn + 1][1])
                maps = source.label(pictures, seed, cycle, group)
            except Exception as error:
                error.add_note(f"while labelling group {group} of cycle {cycle}: images {indices.tolist()}")
                raise
            write(group, indices, maps)
            return False

        if own:
            decoder.start(own[0][1])
        # Groups take unequal times (K is drawn): nobody waits for the others after each.
        pieces = distributed.Pieces()
        for turn in range(-(-len(groups) // world)):
            if pieces.do(partial(label, turn)):
                return False
        if pieces.finish():
            return False
    if progress is not None:
        progress(total, total)
    return True


def _open_writer(path: str | Path, generation: int, count: int, manifest: Mapping[str, Any]) -> GenerationWriter:
    """Rank 0's first: it makes the folder."""
    rank = distributed.rank()

    def make() -> GenerationWriter:
        return GenerationWriter(path, generation, count, rank, manifest)

    first = distributed.all_or_none(make) if rank == 0 else distributed.all_or_none(_nothing)
    return distributed.all_or_none(lambda: first or make())


def _discard(writer: GenerationWriter) -> None:
    """Leave no trace: the others' parts, then the folder."""
    if writer.rank != 0:
        writer.abort()
    distributed.barrier()
    if writer.rank == 0:
        writer.abort()
    distributed.barrier()


def _nothing() -> None:
    return None


class _Decoder:
    """Reads the pictures of one group in threads, while another group is labelled."""

    def __init__(self, source: MaskSource, images: Images, threads: int) -> None:
        self.source = source
        self.images = images
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.pending: list[Future[np.ndarray]] = []

    def start(self, group: np.ndarray) -> None:
        """Begin to read a group."""
        self.pending = [self.pool.submit(self._read, int(index)) for index in group]

    def finish(self) -> list[np.ndarray]:
        """The pictures of the group that was started, in its order, and no longer held here."""
        pending, self.pending = self.pending, []
        return [future.result() for future in pending]

    def _read(self, index: int) -> np.ndarray:
        return self.source.prepare(self.images.read(index)) if self.source.needs_images else _NO_IMAGE

    def __enter__(self) -> _Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)
