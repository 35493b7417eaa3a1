"""What was prepared of each photo, as a run holds it: one file of records by the photos' numbers.

::

    RUN/prepared/NAME.bin    records of data/store.py: an array each, as numpy's .npy; what it was made from is in its meta
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.data.store import RecordStore, RecordWriter
from cyborgs.data.store_format import StoreError
from cyborgs.files import make_folder, remove_tree
from cyborgs.masks.source import GroupMaker
from cyborgs.prepare.cache import Work, cache_folder, describe, make_once
from cyborgs.views.side import Kind

DTYPES: Final[dict[Kind, tuple[str, int]]] = {
    "boxes": ("int32", 2),
    "saliency": ("uint8", 2),
    "neighbours": ("int64", 1),
}
"""Type and number of axes of the arrays of each kind."""


class Maker(GroupMaker[NDArray[Any]], Protocol):
    """Makes the artefact of each photo: boxes, int32 (n, 4) of x, y, width, height; saliency, uint8 (h, w); neighbours,
    int64 (k,), numbers of photos.
    """

    @property
    def name(self) -> str:
        """Of the artefact, as crops and ``EpochPlan.rides`` say."""

    @property
    def kind(self) -> Kind:
        """What it holds."""

    @property
    def width(self) -> int:
        """Boxes or neighbours of a photo, at most; 0 for maps."""

    @property
    def identity(self) -> dict[str, Any]:
        """What it depends on beside the photos, as JSON holds it: settings, versions of libraries."""


class Prepared:
    """An artefact that is made: ``artefact[i]`` is that of photo i. It pickles, and many workers may read at random."""

    def __init__(self, path: Path) -> None:
        """Open it; StoreError where it is missing or damaged."""
        self._records = RecordStore(path)
        meta = self._records.meta
        self.kind: Kind = meta["kind"]
        self.width: int = meta["width"]
        self.description: dict[str, Any] = meta["description"]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int, /) -> NDArray[Any]:
        """The array of a photo; StoreError where its record is damaged."""
        return unpack(self._records.path, index, self._records.read(index), self.kind)

    def verify(self) -> None:
        """Read the file once; StoreError at the first damage."""
        self._records.verify()


def pack(array: NDArray[Any]) -> bytes:
    """The record of an array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(path: Path, index: int, record: bytes, kind: Kind) -> NDArray[Any]:
    """The array of a record; ``path`` and ``index`` are for the message of the StoreError."""
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(record), allow_pickle=False)
        if (array.dtype.name, array.ndim) != DTYPES[kind]:
            raise ValueError(f"it holds {array.dtype.name} {array.shape}")
    except (ValueError, EOFError) as error:
        raise StoreError(path, f"the record of image {index} is no {kind} ({error})") from error
    return array


def kept_by_run(name: str, images: Images, out: Path) -> Prepared | None:
    """What the folder of a run that goes on has of these photos, whatever its settings; a collective call.

    None where it is gone, damaged, or of other photos.
    """
    path = out / "prepared" / f"{name}.bin"
    unfit = distributed.run_on_rank_zero(lambda: _unfit(path, {"photos": images.fingerprint()}))
    return None if unfit else distributed.all_or_none(Prepared, path)


def prepare(
    maker: Maker,
    images: Images,
    out: Path,
    *,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
    cache: Path | None = None,
) -> Prepared | None:
    """The artefact of these photos: the run's own where it has it, else from the cache as far as it is there, else made.

    A collective call (``prepare/cache.py: make_once``). One in the run's folder that was made of other photos or with
    other settings, or is damaged, is made anew, which is said.

    Args:
        maker: what makes it.
        images: the photos.
        out: the run's folder.
        say: told what a person should know.
        progress: called with (groups done, groups in all).
        stopped: asked before each group; True on any process ends the work, and keeps what is made.
        cache: folder of what is kept for other runs; None: ``cache_folder``.

    Returns:
        None where it was stopped.
    """
    path = out / "prepared" / f"{maker.name}.bin"
    description = describe(maker, maker.name, maker.identity, images)
    reason = distributed.run_on_rank_zero(lambda: _unfit(path, description))
    if reason:
        if reason != "missing":
            say(f"{maker.name}: {path} {reason}; it is made anew.")
        meta = {"kind": maker.kind, "width": maker.width}
        work = Work(maker.name, maker, description, maker.kind, meta, pack)

        def publish(files: list[Path]) -> None:
            make_folder(path.parent, parents=True)
            with RecordWriter(path, kind=maker.kind) as file:
                for part in files:
                    with closing(RecordStore(part, kind=maker.kind)) as records:
                        for index in records.indices.tolist():
                            file.write_stored(index, records.read_stored(index))
                file.close({**meta, "description": description})

        def beside() -> bool:
            """In the run's folder, where there is no cache."""
            own = out / "prepared" / f"{maker.name}.groups"
            done = make_once(
                work, images, own, publish, otherwise=lambda: False, progress=progress, stopped=stopped, say=say
            )
            distributed.run_on_rank_zero(lambda: remove_tree(own) if done.how != "stopped" else None)
            return done.how != "stopped"

        folder = cache or cache_folder(maker.name, description)
        outcome = make_once(
            work, images, folder, publish, otherwise=beside, progress=progress, stopped=stopped, say=say
        )
        say(str(outcome))
        if outcome.how == "stopped":
            return None
    return distributed.all_or_none(Prepared, path)


def _unfit(path: Path, wanted: dict[str, Any]) -> str:
    """Why what lies there cannot be taken; empty where it can. ``wanted``: its description, or the photos alone."""
    if not path.exists():
        return "missing"
    try:
        there = Prepared(path)
        there.verify()
    except (StoreError, KeyError) as error:
        return f"is damaged ({error})"
    if there.description.get("photos") != wanted["photos"]:
        return "is of other photos"
    return "" if wanted.items() <= there.description.items() else "has other settings"
