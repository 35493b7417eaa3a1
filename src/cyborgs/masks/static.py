"""Masks that depend on photos and settings alone: made once, and found again by every later run.

::

    $XDG_CACHE_HOME/cyborgs/masks-<key>/      ~/.cache where it is not set; never among the photos
      group-000000.bin                        the maps of one group of the source, as records of data/store.py
      what.json                               what the key is the hash of, for a person to read
      .lock                                   held by the run that fills it

The key is a hash of the source, its settings, the versions of the libraries that its maps depend on, the photos' bytes
and names, and the annotations. A group's file is complete or absent, so a run that was killed loses the groups it was
at. A run's generation is put together from these files, and has the same bytes whether they were made for it, half of
them were there, or all. The folder may be removed at any time: that costs time, nothing else.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import PIL
import simplejpeg
import xxhash
from filelock import FileLock, Timeout

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.data.store import RecordStore, RecordWriter
from cyborgs.data.store_format import StoreError
from cyborgs.errors import DiskError
from cyborgs.files import make_folder, write_bytes
from cyborgs.machine.disk_errors import disk_error
from cyborgs.masks.folder import pack
from cyborgs.masks.generate import generate, label_groups
from cyborgs.masks.source import FixedSource
from cyborgs.masks.store import KIND, GenerationWriter
from cyborgs.sealed import sealed
from cyborgs.structures import LabelMap

FORMAT: Final = 1
LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at the lock that another run holds."""

Groups = Sequence[tuple[int, np.ndarray]]


@dataclass(frozen=True)
class Outcome:
    """How a generation came about."""

    how: Literal["found", "resumed", "made", "stopped"]
    """All groups were there; some were; none was (or nothing can be kept); or the work was asked to stop."""
    folder: Path
    """Where the maps are kept."""

    def __str__(self) -> str:
        told = {
            "found": f"masks: found in {self.folder}, made by an earlier run",
            "resumed": f"masks: made, some of them by an earlier run; kept in {self.folder}",
            "made": f"masks: made; kept in {self.folder} for later runs",
            "stopped": f"masks: stopped; what is made so far is kept in {self.folder}",
        }
        return told[self.how]


def description(source: FixedSource, images: Images) -> dict[str, Any]:
    """All that the maps of a source and these photos depend on, as JSON holds it."""
    versions = {"zlib": zlib.ZLIB_RUNTIME_VERSION}
    if source.needs_images:
        versions |= {"pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    return {
        "format": FORMAT,
        "source": source.name,
        "identity": source.identity,
        "versions": versions,
        "count": len(images),
        "photos": images.fingerprint(),
    }


def default_cache(source: FixedSource, images: Images) -> Path:
    """The folder of these maps, below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cyborgs" / f"masks-{xxhash.xxh64_hexdigest(sealed(description(source, images)))}"


def is_found(source: FixedSource, images: Images, cache: Path | None = None) -> bool:
    """Whether all maps of a source and these photos are kept already."""
    folder = cache or default_cache(source, images)
    return all(_intact(folder, source, *one) for one in enumerate(source.groups(len(images), 0, 0)))


def fixed_generation(
    source: FixedSource,
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

    A collective call, as ``generate``: the groups that are missing are shared by the processes, and each labels its
    group with all its cores. Where machines share no cache, the first process makes what it cannot see itself. Of two
    runs that want the same maps at once, one waits for the other.

    Args:
        source: what makes the maps.
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
    folder = cache or default_cache(source, images)
    groups: Groups = list(enumerate(source.groups(len(images), 0, 0)))

    def missing() -> Groups:
        return distributed.run_on_rank_zero(lambda: [one for one in groups if not _intact(folder, source, *one)])

    def publish() -> None:
        distributed.run_on_rank_zero(lambda: _publish(folder, groups, path, generation, len(images), manifest))

    left = missing()
    if not left:
        publish()
        return Outcome("found", folder)
    unusable = [reason for reason in distributed.gather_objects(_unusable(folder)) if reason]
    if unusable:
        if say is not None:
            say(f"masks: cannot be kept for later runs: {unusable[0]}")
        done = generate(
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
        return Outcome("made" if done else "stopped", folder)

    def write(group: int, indices: np.ndarray, maps: Sequence[LabelMap]) -> None:
        with RecordWriter(_file(folder, group), kind=KIND) as file:
            for index, label_map in zip(indices.tolist(), maps, strict=True):
                file.write(index, pack(label_map.labels))
            file.close({"void": source.void})

    with _alone(folder, stopped, say) as held:
        if not held:
            return Outcome("stopped", folder)
        distributed.run_on_rank_zero(lambda: write_bytes(folder / "what.json", sealed(description(source, images))))
        left = missing()
        how: Literal["found", "resumed", "made"] = "made" if len(left) == len(groups) else "resumed"
        how = how if left else "found"
        for processes in (None, 1):
            if left and not label_groups(
                source,
                images,
                left,
                write,
                seed=0,
                cycle=0,
                progress=progress,
                stopped=stopped,
                threads=threads,
                done=len(groups) - len(left),
                processes=processes,
            ):
                return Outcome("stopped", folder)
            left = missing()
    publish()
    return Outcome(how, folder)


def _file(folder: Path, group: int) -> Path:
    return folder / f"group-{group:06d}.bin"


def _intact(folder: Path, source: FixedSource, group: int, indices: np.ndarray) -> bool:
    """Whether a group's file is there, whole, and undamaged to the last byte."""
    file = _file(folder, group)
    if not file.exists():
        return False
    try:
        with closing(RecordStore(file, kind=KIND)) as records:
            for index in indices.tolist():
                records.read_stored(index)
            return len(records) == len(indices) and records.meta == {"void": source.void}
    except (StoreError, IndexError):
        return False


def _unusable(folder: Path) -> str:
    """Why nothing can be kept there; empty where it can."""
    try:
        make_folder(folder, parents=True)
        with (folder / ".lock").open("a"):
            return ""
    except DiskError as error:
        return str(error)
    except OSError as error:
        return str(disk_error(error, folder))


def _publish(
    folder: Path, groups: Groups, path: str | Path, generation: int, count: int, manifest: Mapping[str, Any]
) -> None:
    """One process puts the generation together."""
    writer = GenerationWriter(path, generation, count, 0, manifest)
    try:
        for group, _ in groups:
            with closing(RecordStore(_file(folder, group), kind=KIND)) as records:
                writer.copy(records)
        writer.publish()
    except BaseException:
        writer.abort()
        raise


@contextmanager
def _alone(folder: Path, stopped: Callable[[], bool] | None, say: Callable[[str], None] | None) -> Iterator[bool]:
    """Hold the folder's lock, on behalf of all processes; False where the wait for it was asked to stop.

    The lock is the system's: it ends with the process that holds it, however that ends.
    """
    lock = FileLock(folder / ".lock")

    def take() -> bool:
        try:
            lock.acquire(timeout=LOOK_AGAIN)
        except Timeout:
            return False
        except OSError as error:
            raise disk_error(error, folder, action="locked") from error
        return True

    told = False
    while not distributed.run_on_rank_zero(take):
        if say is not None and not told:
            say(f"masks: another run is making the same ({folder}); waiting for it")
            told = True
        if distributed.all_any(stopped is not None and stopped()):
            yield False
            return
    try:
        yield True
    finally:
        lock.release()
