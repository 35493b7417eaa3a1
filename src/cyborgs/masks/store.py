"""Label maps of a whole data set, one generation after another, in a run's folder.

::

    masks/
      current.json              {"generation": 1}: replaced as a whole, the only switch there is
      generation-0000/          complete, and never changed again
        maps.bin                records of data/store.py: h, w (u16 each), then the labels, uint8
        manifest.json           what the maps were made from
      generation-0001/ ...
      generation-0002.partial/  being written: part-0000.bin of rank 0, ...

A generation is complete when ``current.json`` has reached its number. Anything else that lies there (a partial
folder, a number beyond the current one) was left by a writer that was killed: readers do not look at it, and the
next writer removes it.
"""

from __future__ import annotations

import operator
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from cyborgs.data.store import RecordStore, RecordWriter, StoreError
from cyborgs.files import sync_folder, write_bytes
from cyborgs.masks.layout import (
    as_json,
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
from cyborgs.structures import LabelMap

KIND: Final = "label maps"


class MaskStore:
    """The maps of one generation: ``store[i]`` -> uint8 (h, w), i as in ``images.csv``.

    It keeps the generation that was current when it was opened; open a new one to see a later switch. Many threads,
    forked or spawned workers may read at random.
    """

    def __init__(self, path: str | Path, generation: int | None = None) -> None:
        """Open the current generation, or a given one; StoreError where there is none or it is damaged."""
        folder = masks_folder(path)
        while True:
            current = current_of(folder)
            if current is None:
                raise StoreError(folder, "there is no complete generation of masks")
            wanted = current if generation is None else generation
            if not 0 <= wanted <= current or not folder_of(folder, wanted).is_dir():
                if current_of(folder) != current:  # switched and pruned between the two looks
                    continue
                have = ", ".join(map(str, complete(folder, current))) or "none"
                raise StoreError(folder, f"there is no complete generation {wanted} of masks (complete: {have})")
            try:
                self._records = RecordStore(folder_of(folder, wanted) / "maps.bin", kind=KIND)
                manifest = read_json(folder_of(folder, wanted) / "manifest.json")
            except StoreError:
                if current_of(folder) != current:
                    continue
                raise
            break
        self.folder = folder
        self.generation: int = wanted
        self.manifest: dict[str, Any] = manifest.get("manifest", {})
        self.void: int | None = manifest.get("void")
        if len(self._records) != manifest.get("count"):
            count = manifest.get("count")
            raise StoreError(self._records.path, f"holds {len(self._records)} maps, its manifest names {count}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> np.ndarray:
        """The map of an image, a fresh uint8 (h, w); IndexError beyond the last (and below 0: ids have no end)."""
        index = operator.index(index)
        return unpack(self._records.path, index, self._records.read(index))

    def generations(self) -> list[int]:
        """Numbers of the complete generations that are on the disk now, in rising order."""
        current = current_of(self.folder)
        return [] if current is None else complete(self.folder, current)

    def verify(self) -> None:
        """Read every map once; StoreError at the first that is damaged."""
        for index in range(len(self)):
            self[index]

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
        self.folder.mkdir(parents=True, exist_ok=True)
        current = current_of(self.folder)
        if current is not None and self.generation <= current:
            raise ValueError(f"{self.folder}: generation {self.generation} is not after the current one, {current}")
        remove_leftovers(self.folder, current)
        self._partial.mkdir()

    def write(self, index: int, label_map: LabelMap) -> None:
        """Store the map of image ``index``; all maps of a generation name the same void label."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.folder}: there is no image {index} among {self.count}")
        if len(self._part) and label_map.void != self._void:
            raise ValueError(f"{self.folder}: image {index} has void label {label_map.void}, others {self._void}")
        self._void = label_map.void
        self._part.write(index, pack(label_map.labels))

    def close(self) -> None:
        """Complete this process's part: on all processes, before rank 0 publishes."""
        self._part.close({"void": self._void})

    def abort(self) -> None:
        """Drop this process's part; on rank 0, which comes last, all that was written."""
        self._part.abort()
        if self.rank == 0:
            shutil.rmtree(self._partial, ignore_errors=True)

    def publish(self) -> None:
        """Rank 0: join the parts in the order of the images, and make the generation the current one.

        ValueError where an image is missing; the generation that was current stays so.
        """
        self.close()
        parts = [RecordStore(file, kind=KIND) for file in sorted(self._partial.glob("part-*.bin"))]
        parts = [part for part in parts if len(part)]
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
        for part in parts:
            part.close()
        described = {
            "generation": self.generation,
            "count": self.count,
            "void": voids.pop(),
            "manifest": self.manifest,
        }
        write_bytes(self._partial / "manifest.json", as_json(described))
        for file in self._partial.glob("part-*"):
            file.unlink()
        sync_folder(self._partial)
        self._partial.rename(folder_of(self.folder, self.generation))
        sync_folder(self.folder)
        switch(self.folder, self.generation)


def set_current(path: str | Path, generation: int | None) -> None:
    """Go back to a generation, or to none, and remove all later ones: for resuming from an older checkpoint.

    One process calls it, while none writes. StoreError where the generation is not there.
    """
    folder = masks_folder(path)
    if generation is not None:
        target = folder_of(folder, generation)
        RecordStore(target / "maps.bin", kind=KIND).close()
        read_json(target / "manifest.json")
        switch(folder, generation)
    elif (folder / "current.json").exists():
        (folder / "current.json").unlink()
        sync_folder(folder)
    if folder.is_dir():
        remove_leftovers(folder, generation)


def prune(path: str | Path, keep: int) -> list[int]:
    """Keep the ``keep`` latest complete generations (0: all) and remove the older ones; returns those removed."""
    folder = masks_folder(path)
    current = current_of(folder)
    if current is None or keep == 0:
        return []
    removed = complete(folder, current)[:-keep]
    for generation in removed:
        # First out of sight as a whole, so that nobody finds half of it.
        doomed = folder_of(folder, generation).rename(folder_of(folder, generation, ".removed"))
        shutil.rmtree(doomed)
    return removed
