"""The folder of a segmentation: what is done already, each photo's files, and the tables at the end."""

from __future__ import annotations

import csv
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from cyborgs.data.output import jpeg_bytes, label_png_bytes, put, remove_leftovers
from cyborgs.data.palette import overlay, palette
from cyborgs.errors import UserError, printable
from cyborgs.features.extraction import UInt8
from cyborgs.files import AppendFile, make_folder, remove_tree, replacing, write_bytes
from cyborgs.structures import PhotoMask

FORMAT: Final = 1
"""Of ``segmentation.json``."""
ABOUT: Final = "segmentation.json"
TABLE: Final = "segments.csv"
CENTROIDS: Final = "centroids.safetensors"
WORK: Final = ".segmenting"
"""Folder of what is known of photos that are done; gone when all are."""
MADE: Final = (
    *("labels", "overlays", "palette.json", TABLE, CENTROIDS, WORK, ABOUT),
    *("instances.json", "panoptic", "panoptic.json", "label_studio.json", "label_studio.xml"),
)
"""All that a segmentation may consist of, and all that --overwrite removes."""


class Export(Protocol):
    """A format beside the label PNGs: a piece a photo, put together at the end (``export/``)."""

    @property
    def name(self) -> str:
        """As the command line has it."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names below the folder that it writes."""

    def photo(self, mask: PhotoMask, folder: Path) -> Any:
        """The photo's piece, of what JSON holds; may write files below ``folder``. Called in threads."""

    def finish(self, folder: Path, pieces: Callable[[], Iterator[Any]]) -> None:
        """Write the format's file from all pieces in the photos' order; ``pieces()`` may be called again."""


class SegmentFolder:
    """One segmentation on the disk. A photo is done when its line is in the journal, after all its files.

    Args:
        path: made where it is missing.
        settings: all that decides what the masks are; a folder of other settings is refused.
        exports: formats beside the label PNGs.
        labels: K where label c means the same in all photos: its columns of ``segments.csv``; otherwise None.
        overlays: write them.
        overwrite: remove a segmentation of other settings first.

    Raises:
        UserError: the folder holds another segmentation, or something that this one would write over.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        exports: Sequence[Export] = (),
        *,
        labels: int | None = None,
        overlays: bool = True,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.exports = tuple(exports)
        self.labels = labels
        self.overlays = overlays
        self.complete = False
        """Nothing is left to do."""
        self.done: set[int] = set()
        """Photos whose files are written."""
        self._lock = threading.Lock()
        self._journal: AppendFile | None = None
        self._pieces: dict[str, AppendFile] = {}
        self._check(overwrite)

    @property
    def work(self) -> Path:
        """Where the journal lies."""
        return self.path / WORK

    def _check(self, overwrite: bool) -> None:
        """Compare with what lies there, before anything is computed."""
        known = self._about()
        shown = printable(str(self.path))
        if known is None:
            there = [name for name in MADE if (self.path / name).exists()]
            if there:
                raise UserError(
                    f"{shown}: holds {there[0]}, which is not known to be of cyborgs segment (no {ABOUT}). "
                    "Choose another folder for --out."
                )
            return
        different = [
            f"{key}: {_short(known['settings'].get(key))} -> {_short(self.settings.get(key))}"
            for key in {**known["settings"], **self.settings}
            if known["settings"].get(key) != self.settings.get(key)
        ]
        if different and known.get("complete") is False and not self._begun():
            # An earlier start ended before it had anything to lose, perhaps because of these very settings.
            for name in (WORK, ABOUT):
                remove_tree(self.path / name)
            return
        if different and not overwrite:
            raise UserError(
                f"{shown}: holds a segmentation with other settings ({'; '.join(different[:4])}). "
                "Choose another folder, or give --overwrite."
            )
        if overwrite:
            for name in MADE:
                remove_tree(self.path / name)
        elif known.get("complete") is True and self._all_there():
            self.complete = True
            remove_tree(self.work)

    def _begun(self) -> bool:
        """Whether an earlier start came beyond its first pass."""
        journal = self.work / "journal.jsonl"
        return (self.path / CENTROIDS).exists() or (journal.exists() and journal.stat().st_size > 0)

    def _about(self) -> dict[str, Any] | None:
        path = self.path / ABOUT
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: cannot be read ({error}). Choose another folder for --out.") from error
        if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
            raise UserError(f"{path}: is not what cyborgs segment writes. Choose another folder for --out.")
        return found

    def _all_there(self) -> bool:
        try:
            with open(self.path / TABLE, newline="", encoding="utf-8", errors="surrogateescape") as file:
                masks = (row["mask"] for row in csv.DictReader(file))
                whole = all((self.path / mask).is_file() for mask in masks)
        except (OSError, KeyError, csv.Error):
            return False
        return whole and all((self.path / name).exists() for export in self.exports for name in export.files)

    def open(self, about: Mapping[str, Any]) -> int:
        """Begin, or go on; how many photos are done already. ``about``: what ``segmentation.json`` says beside."""
        make_folder(self.path, parents=True)
        make_folder(self.work)
        self._write_about(about, complete=False)
        remove_tree(self.path / TABLE)
        for name in ("labels", "overlays", "panoptic"):
            remove_leftovers(self.path / name)
        journal = self.work / "journal.jsonl"
        for export in self.exports:
            piece = self.work / f"{export.name}.jsonl"
            self._pieces[export.name] = AppendFile(piece, _whole_lines(piece))
        length = _whole_lines(journal)
        if length:
            with open(journal, "rb") as raw:
                lines = sum(1 for line in raw if line.endswith(b"\n"))
            with open(journal, encoding="ascii", newline="\n", errors="replace") as file:
                for line in islice(file, lines):
                    entry = json.loads(line.partition("\t")[2])
                    if all(_size(self.path / name) == size for name, size in entry["files"].items()):
                        self.done.add(int(line.partition("\t")[0]))
        self._journal = AppendFile(journal, length)
        return len(self.done)

    def add(self, mask: PhotoMask, image: UInt8 | None) -> None:
        """Write a photo's files and note that it is done. May be called in threads."""
        files = {f"labels/{mask.mask}": put(self.path / "labels" / mask.mask, label_png_bytes(mask.labels))}
        if self.overlays and image is not None:
            name = str(Path("overlays", mask.mask).with_suffix(".jpg"))
            files[name] = put(self.path / name, jpeg_bytes(overlay(image, mask.labels)))
        pieces = {export.name: json.dumps(export.photo(mask, self.path)) for export in self.exports}
        counts = np.bincount(mask.labels.ravel(), minlength=self.labels or 0)
        entry = {
            "name": mask.name,
            "files": files,
            "pixels": mask.labels.size,
            "counts": counts.tolist() if self.labels else None,
            "regions": int(np.count_nonzero(counts))
            - int(mask.void is not None and bool((mask.labels == mask.void).any())),
        }
        line = f"{mask.index}\t{json.dumps(entry)}\n"
        with self._lock:
            for name, piece in pieces.items():
                self._pieces[name].write(f"{mask.index}\t{piece}\n".encode("ascii"))
                self._pieces[name].drain()
            assert self._journal is not None
            self._journal.write(line.encode("ascii"))
            self._journal.drain()
            self.done.add(mask.index)

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write palette, exports, ``segmentation.json`` and, last, ``segments.csv``; the journal goes."""
        self.close()
        shown = self.labels or 256
        colours = {str(c): [int(v) for v in rgb] for c, rgb in enumerate(palette(shown))}
        write_bytes(self.path / "palette.json", (json.dumps(colours, indent=1) + "\n").encode())
        for export in self.exports:
            path = self.work / f"{export.name}.jsonl"
            index = _index(path)
            export.finish(self.path, lambda path=path, index=index: _pieces(path, index, len(self.done)))  # type: ignore[misc]
        self._write_about(about, complete=True)
        with replacing(self.path / TABLE) as file:
            writer = csv.writer(_Rows(file))
            columns = ["regions"] if not self.labels else [f"cluster {c}" for c in range(self.labels)]
            writer.writerow(["photo", "mask", *columns])
            journal = self.work / "journal.jsonl"
            for entry in _pieces(journal, _index(journal), len(self.done)):
                shares = [f"{n / entry['pixels']:.6f}" for n in entry["counts"] or ()] or [entry["regions"]]
                writer.writerow([entry["name"], next(iter(entry["files"])), *shares])
        remove_tree(self.work)
        self.complete = True

    def close(self) -> None:
        """Close the journal; what is noted stays."""
        for file in (*self._pieces.values(), *([self._journal] if self._journal else [])):
            file.close()

    def _write_about(self, about: Mapping[str, Any], *, complete: bool) -> None:
        text = {"format": FORMAT, "complete": complete, **about, "settings": self.settings}
        write_bytes(self.path / ABOUT, (json.dumps(text, indent=1) + "\n").encode("ascii"))


class _Rows:
    """A file of bytes as csv.writer wants it: bytes of names that are no UTF-8 stay what they are."""

    def __init__(self, file: AppendFile) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write(row.encode("utf-8", "surrogateescape"))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _whole_lines(path: Path) -> int:
    """Bytes of a file up to its last end of a line: a kill may leave a torn one."""
    if not path.exists():
        return 0
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0


def _index(path: Path) -> dict[int, int]:
    """Where each photo's piece begins; the last one counts."""
    index: dict[int, int] = {}
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            start = line.index(b"\t") + 1
            index[int(line[: start - 1])] = offset + start
            offset += len(line)
    return index


def _pieces(path: Path, index: Mapping[int, int], count: int) -> Iterator[Any]:
    assert len(index) >= count
    with open(path, "rb") as file:
        for i in sorted(index):
            file.seek(index[i])
            yield json.loads(file.readline())
