"""Label maps of a whole data set, one generation after another, in a run's folder.

::

    masks/
      current.json              {"generation": 1}: replaced as a whole, the only switch there is
      generation-0000/          complete, and never changed again
        maps.bin                records of data/store.py: h, w (u16 each), then the labels, uint8
        manifest.json           what the maps were made from; both JSON files carry a checksum of themselves
      generation-0001/ ...
      generation-0002.partial/  being written: part-0000.bin of rank 0, ...

A generation is complete when ``current.json`` has reached its number. Anything else that lies there (a partial
folder, a number beyond the current one) was left by a writer that was killed: readers do not look at it, and the
next writer removes it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import numpy as np

from cyborgs.data.store import RecordStore, RecordWriter
from cyborgs.data.store_format import StoreError
from cyborgs.files import cleared, discard, listed, make_folder, rename, sync_folder, try_remove, unlink, write_bytes
from cyborgs.masks.folder import (
    complete,
    current_of,
    folder_of,
    masks_folder,
    pack,
    read_json,
    remove_leftovers,
    switch,
    unpack,
)
from cyborgs.sealed import sealed
from cyborgs.structures import LabelMap

KIND: Final = "label maps"
_PART: Final = re.compile(r"part-\d{4,}\.bin")
FORMAT: Final = 1
"""Version of the manifest; the records have their own."""


class MaskStore:
    """The maps of one generation: ``store[i]`` -> uint8 (h, w), i as in ``images.csv``.

    It keeps the generation that was current when it was opened; open a new one to see a later switch. Many threads,
    forked or spawned workers may read at random.
    """

    def __init__(self, path: str | Path, generation: int | None = None) -> None:
        """Open the current generation, or a given one; StoreError where there is none or it is damaged.

        What is damaged is named, and the newest older generation that is intact.
        """
        folder = masks_folder(path)
        while True:
            try:
                current = current_of(folder)
            except StoreError as error:
                raise _advised(error, folder) from error
            if current is None:
                raise StoreError(folder, "there is no complete generation of masks")
            wanted = current if generation is None else generation
            if not 0 <= wanted <= current or not folder_of(folder, wanted).is_dir():
                if current_of(folder) != current:  # switched and pruned between the two looks
                    continue
                have = ", ".join(map(str, complete(folder, current + 1))) or "none"
                raise StoreError(folder, f"there is no complete generation {wanted} of masks (complete: {have})")
            try:
                self._records, manifest = _open(folder, wanted)
            except StoreError as error:
                if current_of(folder) != current:
                    continue
                raise _advised(error, folder, wanted) from error
            break
        self.folder = folder
        self.generation: int = wanted
        self.manifest: dict[str, Any] = manifest.get("manifest", {})
        self.void: int | None = manifest.get("void")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> np.ndarray:
        """The map of an image, a fresh uint8 (h, w); IndexError beyond the last (and below 0: ids have no end)."""
        index = operator.index(index)
        try:
            return unpack(self._records.path, index, self._records.read(index))
        except StoreError as error:
            raise _advised(error, self.folder, self.generation) from error

    def generations(self) -> list[int]:
        """Numbers of the complete generations that are on the disk now, in rising order."""
        current = current_of(self.folder)
        return [] if current is None else complete(self.folder, current + 1)

    def verify(self) -> None:
        """Read all files of this generation once, as they are now; StoreError at the first damage."""
        try:
            read_json(folder_of(self.folder, self.generation) / "manifest.json")
            self._records.verify()
        except StoreError as error:
            raise _advised(error, self.folder, self.generation) from error

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        self._records.close()


class GenerationWriter:
    """Writes one generation. Every process makes one and writes its own part; rank 0 publishes.

    Rank 0's is made first: it removes what a killed writer left. The generation must be later than the current one
    (``set_current`` goes back). ``masks/generate.py`` shows who waits for whom.
    """

    def __init__(
        self,
        path: str | Path,
        generation: int,
        count: int,
        rank: int = 0,
        manifest: Mapping[str, Any] | None = None,
    ) -> None:
        """Open this process's part.

        Args:
            path: a run's folder or its ``masks/``; made where it is missing.
            generation: the new number.
            count: images of the data set, at least 1.
            rank: this process.
            manifest: what the maps are made from, as JSON holds it. Put no time or path in it.
        """
        if count < 1 or generation < 0:
            raise ValueError(f"need at least one image and a generation from 0, got {count} and {generation}")
        self.folder = masks_folder(path)
        self.generation = generation
        self.count = count
        self.rank = rank
        self.manifest = dict(manifest or {})
        self._partial = folder_of(self.folder, generation, ".partial")
        if rank == 0:
            self._prepare()
        self._part = RecordWriter(self._partial / f"part-{rank:04d}.bin", kind=KIND)
        self._void: int | None = None

    def _prepare(self) -> None:
        make_folder(self.folder, parents=True)
        current = current_of(self.folder)
        if current is not None and self.generation <= current:
            raise ValueError(f"{self.folder}: generation {self.generation} is not after the current one, {current}")
        remove_leftovers(self.folder, current)
        make_folder(self._partial)

    def write(self, index: int, label_map: LabelMap) -> None:
        """Store the map of image ``index``; all maps of a generation name the same void label."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.folder}: there is no image {index} among {self.count}")
        if len(self._part) and label_map.void != self._void:
            raise ValueError(f"{self.folder}: image {index} has void label {label_map.void}, others {self._void}")
        self._void = label_map.void
        self._part.write(index, pack(label_map.labels))

    def copy(self, records: RecordStore) -> None:
        """Store all maps of a file of records (``meta`` names their void label) as they lie there."""
        for index in records.indices.tolist():
            self._void = records.meta["void"]
            self._part.write_stored(index, records.read_stored(index))

    def close(self) -> None:
        """Complete this process's part: on all processes, before rank 0 publishes."""
        self._part.close({"void": self._void})

    def abort(self) -> None:
        """Drop this process's part; on rank 0, which comes last, all that was written."""
        self._part.abort()
        if self.rank == 0:
            try_remove(self._partial)

    def publish(self) -> None:
        """Rank 0: join the parts in the order of the images, and make the generation the current one.

        ValueError where an image is missing, DiskError where the disk does not take it. Then all that was written is
        removed, and the generation that was current stays so.
        """
        self.close()
        files = [file for file in listed(self._partial) if _PART.fullmatch(file.name)]
        final = folder_of(self.folder, self.generation)
        # The parts and what they are joined to are there at the same time.
        with cleared(self._partial, final, 2 * sum(file.stat().st_size for file in files)):
            self._assemble(files)
            rename(self._partial, final)
            sync_folder(self.folder)
            switch(self.folder, self.generation)

    def _assemble(self, files: list[Path]) -> None:
        """All that the generation's folder holds in the end, on the disk."""
        with ExitStack() as opened:
            parts = [opened.enter_context(closing(RecordStore(file, kind=KIND))) for file in files]
            void = self._join([part for part in parts if len(part)])
        described = {
            "format": FORMAT,
            "generation": self.generation,
            "count": self.count,
            "void": void,
            "manifest": self.manifest,
        }
        write_bytes(self._partial / "manifest.json", sealed(described))
        for file in files:
            unlink(file)
        sync_folder(self._partial)

    def _join(self, parts: list[RecordStore]) -> int | None:
        """Write ``maps.bin`` from the processes' parts; the void label of all."""
        voids = {part.meta["void"] for part in parts}
        if len(voids) > 1:
            raise ValueError(
                f"{self.folder}: the processes' maps name different void labels, {sorted(map(str, voids))}"
            )
        owner = np.full(self.count, -1, np.int64)
        for number, part in enumerate(parts):
            if (owner[part.indices] >= 0).any():
                raise ValueError(f"{self._partial}: two processes labelled the same image")
            owner[part.indices] = number
        missing = np.flatnonzero(owner < 0)
        if len(missing):
            shown = ", ".join(str(index) for index in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(f"{self._partial}: {len(missing)} of {self.count} images have no map ({shown})")
        # In image order and without a trace of the parts: the bytes do not depend on how many processes there were.
        with RecordWriter(self._partial / "maps.bin", kind=KIND) as whole:
            for index, number in enumerate(owner.tolist()):
                whole.write_stored(index, parts[number].read_stored(index))
        void: int | None = voids.pop()
        return void


def _open(folder: Path, generation: int) -> tuple[RecordStore, dict[str, Any]]:
    """Maps and manifest of a generation; StoreError where they are missing, damaged, newer or do not fit."""
    place = folder_of(folder, generation)
    records = RecordStore(place / "maps.bin", kind=KIND)
    manifest = read_json(place / "manifest.json")
    if manifest.get("format") != FORMAT:
        what = f"has format {manifest.get('format')}, this version of cyborgs reads format {FORMAT}"
        raise StoreError(place / "manifest.json", what)
    if len(records) != manifest.get("count"):
        raise StoreError(records.path, f"holds {len(records)} maps, its manifest names {manifest.get('count')}")
    return records, manifest


def _advised(error: StoreError, folder: Path, below: int | None = None) -> StoreError:
    """The same error with what to do: the newest intact generation before number ``below`` (None: of all)."""
    if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
        return error  # the system refuses to read it: the file may be fine
    for generation in reversed(complete(folder, below)):
        try:
            _open(folder, generation)[0].verify()
        except StoreError:
            continue
        go_back = f"cyborgs.masks.store.set_current({str(folder)!r}, {generation})"
        return StoreError(error.path, f"{error.what}. Generation {generation} is intact: {go_back} goes back to it")
    return StoreError(error.path, f"{error.what}. No other generation is intact: restore the file from a copy")


def set_current(path: str | Path, generation: int | None) -> None:
    """Go back to a generation, or to none, and remove all later ones: for resuming from an older checkpoint.

    One process calls it, while none writes. StoreError where the generation is not there.
    """
    folder = masks_folder(path)
    if generation is not None:
        _open(folder, generation)[0].close()
        switch(folder, generation)
    elif (folder / "current.json").exists():
        unlink(folder / "current.json")
        sync_folder(folder)
    if folder.is_dir():
        remove_leftovers(folder, generation)


def prune(path: str | Path, keep: int) -> list[int]:
    """Keep the ``keep`` latest complete generations (0: all) and remove the older ones; returns those removed."""
    folder = masks_folder(path)
    current = current_of(folder)
    if current is None or keep == 0:
        return []
    removed = complete(folder, current + 1)[:-keep]
    for generation in removed:
        discard(folder_of(folder, generation), folder_of(folder, generation, ".removed"))
    return removed
