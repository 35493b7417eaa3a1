"""Masks that depend on photos and settings alone, kept for other runs by ``prepare/cache.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from cyborgs.data.images import Images
from cyborgs.data.store import RecordStore
from cyborgs.masks.folder import pack
from cyborgs.masks.generate import generate
from cyborgs.masks.source import MaskSource
from cyborgs.masks.store import KIND, GenerationWriter
from cyborgs.prepare.cache import Outcome, Work, cache_folder, describe, groups_of, is_intact, make_once
from cyborgs.structures import LabelMap


def _work(source: MaskSource, images: Images) -> Work[LabelMap]:
    assert source.identity is not None
    description = describe(source, source.name, source.identity, images)
    return Work("masks", source, description, KIND, {"void": source.void}, lambda one: pack(one.labels))


def default_cache(source: MaskSource, images: Images) -> Path:
    """The folder of these maps, below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return cache_folder("masks", _work(source, images).description)


def is_found(source: MaskSource, images: Images, cache: Path | None = None) -> bool:
    """Whether all maps of a source and these photos are kept already."""
    folder, work = cache or default_cache(source, images), _work(source, images)
    return all(is_intact(folder, work, *one) for one in groups_of(source, len(images)))


def fixed_generation(
    source: MaskSource,
    images: Images,
    path: str | Path,
    generation: int = 0,
    *,
    manifest: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    say: Callable[[str], None] | None = None,
    threads: int | None = None,
    cache: Path | None = None,
) -> Outcome:
    """Make the maps of all images the store's current generation, from the cache as far as they are there.

    A collective call, as ``generate`` and ``make_once``.

    Args:
        source: what makes the maps; it has an ``identity``.
        images: the data set.
        path: the run's folder or its ``masks/``.
        generation: number of the new generation.
        manifest: kept beside the generation.
        progress: called with (groups done, groups in all).
        stopped: asked before each group; True on any process ends the work, and keeps what is made.
        say: told what a person should know.
        threads: that decode.
        cache: folder of the maps; None: :func:`default_cache`. Where it cannot be written the maps are made for this
            run alone.
    """

    def alone() -> bool:
        return generate(
            source,
            images,
            path,
            generation,
            seed=0,
            cycle=0,
            manifest=manifest,
            progress=progress,
            stopped=stopped,
            threads=threads,
        )

    return make_once(
        _work(source, images),
        images,
        cache or default_cache(source, images),
        lambda files: _publish(files, path, generation, len(images), manifest),
        otherwise=alone,
        progress=progress,
        stopped=stopped,
        say=say,
        threads=threads,
    )


def _publish(files: list[Path], path: str | Path, generation: int, count: int, manifest: Mapping[str, Any]) -> None:
    """One process puts the generation together."""
    writer = GenerationWriter(path, generation, count, 0, manifest)
    try:
        for file in files:
            with closing(RecordStore(file, kind=KIND)) as records:
                writer.copy(records)
        writer.publish()
    except BaseException:
        writer.abort()
        raise
