"""Things that depend on photos and settings alone: made once, and found again by every later run.

::

    $XDG_CACHE_HOME/cyborgs/NAME-<key>/       ~/.cache where it is not set; never among the photos
      group-000000.bin                        what was made of one group of photos, as records of data/store.py
      what.json                               what the key is the hash of, for a person to read
      .lock                                   held by the run that fills it

The key is a hash of what makes it, its settings, the versions of the libraries that it depends on, and the photos' bytes
and names. A group's file is complete or absent, so a run that was killed loses the groups it was at. A run's own copy is
put together from these files, and has the same bytes whether they were made for it, half of them were there, or all.
The folder may be removed at any time: that costs time, nothing else.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, Literal

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
from cyborgs.masks.generate import label_groups
from cyborgs.masks.source import GroupMaker, T
from cyborgs.sealed import sealed

FORMAT: Final = 1
Groups = Sequence[tuple[int, np.ndarray]]
LOOK_AGAIN: Final = 1.0
"""Seconds between two looks at the lock that another run holds."""


@dataclass(frozen=True)
class Outcome:
    """How a generation came about."""

    how: Literal["found", "resumed", "made", "stopped"]
    """All groups were there; some were; none was (or nothing can be kept); or the work was asked to stop."""
    folder: Path
    """Where it is kept."""
    what: str = "masks"
    """In messages."""

    def __str__(self) -> str:
        told = {
            "found": f"{self.what}: found in {self.folder}, made by an earlier run",
            "resumed": f"{self.what}: made, some of them by an earlier run; kept in {self.folder}",
            "made": f"{self.what}: made; kept in {self.folder} for later runs",
            "stopped": f"{self.what}: stopped; what is made so far is kept in {self.folder}",
        }
        return told[self.how]


@dataclass(frozen=True)
class Work(Generic[T]):
    """Something to be made of each photo."""

    what: str
    """Its name in messages."""
    maker: GroupMaker[T]
    description: Mapping[str, Any]
    """All that it depends on, as JSON holds it (``describe``)."""
    kind: str
    """Of its records."""
    meta: Mapping[str, Any]
    """Kept in each group's file."""
    pack: Callable[[T], bytes]
    """The record of a photo."""


def describe(maker: GroupMaker[Any], name: str, identity: Mapping[str, Any], images: Images) -> dict[str, Any]:
    """All that something made of these photos depends on, as JSON holds it."""
    versions = {"zlib": zlib.ZLIB_RUNTIME_VERSION}
    if maker.needs_images:
        versions |= {"pillow": PIL.__version__, "simplejpeg": simplejpeg.__version__}
    return {
        "format": FORMAT,
        "source": name,
        "identity": dict(identity),
        "versions": versions,
        "count": len(images),
        "photos": images.fingerprint(),
    }


def cache_folder(name: str, description: Mapping[str, Any]) -> Path:
    """Its folder, below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "cyborgs" / f"{name}-{xxhash.xxh64_hexdigest(sealed(description))}"


def groups_of(maker: GroupMaker[Any], count: int) -> list[tuple[int, np.ndarray]]:
    """Numbers and indices of its groups."""
    return list(enumerate(maker.groups(count, 0, 0)))


def make_once(
    work: Work[T],
    images: Images,
    folder: Path,
    publish: Callable[[list[Path]], None],
    *,
    otherwise: Callable[[], bool],
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    say: Callable[[str], None] | None = None,
    threads: int | None = None,
) -> Outcome:
    """Make what is missing, then publish it.

    A collective call: the groups that are missing are shared by the processes, and each makes its group with all its
    cores. Where machines share no cache, the first process makes what it cannot see itself. Of two runs that want the
    same at once, one waits for the other.

    Args:
        work: what to make.
        images: the data set.
        folder: of the groups' files, ``cache_folder`` as a rule.
        publish: called in the first process with all groups' files, in order.
        otherwise: called in all processes where the folder cannot be written; answers whether it was not stopped.
        progress: called with (groups done, groups in all).
        stopped: asked before each group; True on any process ends the work, and keeps what is made.
        say: told what a person should know.
        threads: that decode.
    """
    groups = groups_of(work.maker, len(images))

    def missing() -> Groups:
        return distributed.run_on_rank_zero(lambda: [one for one in groups if not is_intact(folder, work, *one)])

    def finish(how: Literal["found", "resumed", "made"]) -> Outcome:
        distributed.run_on_rank_zero(lambda: publish([_file(folder, group) for group, _ in groups]))
        return Outcome(how, folder, work.what)

    left = missing()
    if not left:
        return finish("found")
    unusable = [reason for reason in distributed.gather_objects(_unusable(folder)) if reason]
    if unusable:
        if say is not None:
            say(f"{work.what}: cannot be kept for later runs: {unusable[0]}")
        return Outcome("made" if otherwise() else "stopped", folder, work.what)

    def write(group: int, indices: np.ndarray, made: Sequence[T]) -> None:
        with RecordWriter(_file(folder, group), kind=work.kind) as file:
            for index, one in zip(indices.tolist(), made, strict=True):
                file.write(index, work.pack(one))
            file.close(work.meta)

    with _alone(folder, work.what, stopped, say) as held:
        if not held:
            return Outcome("stopped", folder, work.what)
        distributed.run_on_rank_zero(lambda: write_bytes(folder / "what.json", sealed(work.description)))
        left = missing()
        how: Literal["found", "resumed", "made"] = "made" if len(left) == len(groups) else "resumed"
        how = how if left else "found"
        for processes in (None, 1):
            if left and not label_groups(
                work.maker,
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
                return Outcome("stopped", folder, work.what)
            left = missing()
    return finish(how)


def _file(folder: Path, group: int) -> Path:
    return folder / f"group-{group:06d}.bin"


def is_intact(folder: Path, work: Work[Any], group: int, indices: np.ndarray) -> bool:
    """Whether a group's file is there, whole, and undamaged to the last byte."""
    file = _file(folder, group)
    if not file.exists():
        return False
    try:
        with closing(RecordStore(file, kind=work.kind)) as records:
            for index in indices.tolist():
                records.read_stored(index)
            return len(records) == len(indices) and records.meta == dict(work.meta)
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


@contextmanager
def _alone(
    folder: Path, what: str, stopped: Callable[[], bool] | None, say: Callable[[str], None] | None
) -> Iterator[bool]:
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
            say(f"{what}: another run is making the same ({folder}); waiting for it")
            told = True
        if distributed.all_any(stopped is not None and stopped()):
            yield False
            return
    try:
        yield True
    finally:
        lock.release()
