"""Photos by number, wherever they lie: what all code outside of ``data/`` sees of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import numpy as np
import xxhash

from cyborgs.data.decode import MAX_PIXELS, Pixels, UnreadableImage, decode, displayed_size
from cyborgs.data.scan import Scan
from cyborgs.errors import UserError
from cyborgs.files import AppendFile, replacing


class Images(Protocol):
    """Random access to photos, from several threads and from forked processes.

    The loader, mask sources, frozen networks and protocols take any class with these methods; :class:`ScannedImages` and
    :class:`PhotoFiles` are such. A run scans a folder or list: ``pretrain`` takes a path. ``name``, ``size``, ``file_size`` and ``fingerprint`` decode nothing.
    """

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What messages and files of results call photo i; each has its own."""
        ...

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) as displayed, in pixels."""
        ...

    def file_size(self, i: int) -> int:
        """How many bytes ``content`` gives."""
        ...

    def content(self, i: int) -> bytes:
        """The bytes of photo i's file. Raises UnreadableImage naming it."""
        ...

    def read(self, i: int) -> Pixels:
        """Photo i, uint8 (H, W, 3), RGB, as displayed. Raises UnreadableImage naming it."""
        ...

    def fingerprint(self) -> str:
        """Changes with any name, any file's bytes, and their order."""
        ...

    def subset(self, indices: Sequence[int]) -> Images:
        """The photos at these indices, in this order, numbered anew."""
        ...


def _content(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImage(name, f"cannot be opened: {error.strerror}") from error


def _stat(path: Path, name: str) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise UnreadableImage(name, f"cannot be opened: {error.strerror}") from error


@final
@dataclass(frozen=True)
class PhotoFiles:
    """The files at these paths; nothing is scanned. What cannot be read becomes known when it is read, by its path."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, i: int) -> str:
        """The path."""
        return str(self.paths[i])

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) as displayed, from the file's header. Raises UnreadableImage."""
        return displayed_size(self.paths[i], self.name(i))

    def file_size(self, i: int) -> int:
        """Bytes, as the file system says. Raises UnreadableImage."""
        return _stat(self.paths[i], self.name(i)).st_size

    def content(self, i: int) -> bytes:
        """The file. Raises UnreadableImage."""
        return _content(self.paths[i], self.name(i))

    def read(self, i: int) -> Pixels:
        """Photo i, uint8 (H, W, 3), RGB, as displayed. Raises UnreadableImage."""
        return decode(self.content(i), self.name(i))

    def fingerprint(self) -> str:
        """16 hexadecimal digits, of each file's absolute path, size and time of change: no file is read.

        It says that what was kept of these files still holds. Results that are compared across machines carry
        ``evaluation.sets.splits.fingerprint``, which a copy of the files shares.

        Raises:
            UnreadableImage: a file is gone.
        """
        digest = xxhash.xxh64()
        for i, path in enumerate(self.paths):
            found = _stat(path, self.name(i))
            digest.update(os.fsencode(path.absolute()) + b"\0")
            digest.update(f"{found.st_size} {found.st_mtime_ns}".encode())
        return digest.hexdigest()

    def subset(self, indices: Sequence[int]) -> PhotoFiles:
        """The files at these indices, in this order."""
        return PhotoFiles(tuple(self.paths[i] for i in indices))


@final
class ScannedImages:
    """The usable photos that a scan found. Index i is row i of ``images.csv``.

    Names lie in one bytes object, numbers in arrays: a million photos cost some 60 bytes each beside their names,
    pickle at once, and forked workers do not copy the memory by counting references.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        records: Sequence[tuple[str, int, int, int]],
        skipped: Sequence[tuple[str, str]] = (),
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """``records`` are (name, height, width, hash), as in ``Scan.images``."""
        self.root = os.fspath(root)
        self.skipped = tuple(skipped)
        self.max_pixels = max_pixels
        encoded = [os.fsencode(record[0]) for record in records]
        self._names = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._sizes = np.array([record[1:3] for record in records], dtype=np.int32).reshape(-1, 2)
        self._hashes = np.array([record[3] for record in records], dtype=np.uint64)

    @classmethod
    def from_scan(cls, scan: Scan, *, max_pixels: int = MAX_PIXELS) -> ScannedImages:
        """The usable photos of a scan, in its order."""
        return cls(scan.root, scan.images, scan.skipped, max_pixels=max_pixels)

    @classmethod
    def read_csv(cls, folder: str | os.PathLike[str], root: str | os.PathLike[str]) -> ScannedImages:
        """The photos of the ``images.csv`` that ``write_csv`` wrote, below ``root``; no photo is opened.

        Raises:
            UserError: the file is missing or damaged; names it.
        """
        path = Path(folder) / "images.csv"
        try:
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                rows = list(csv.DictReader(file))
            records = [(row["name"], int(row["height"]), int(row["width"]), int(row["hash"], 16)) for row in rows]
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read as the list of a run's photos ({error}).") from error
        return cls(root, records)

    def subset(self, indices: Sequence[int]) -> ScannedImages:
        """The photos at these indices, in this order, numbered anew; nothing is skipped."""
        records = [(self.name(i), *self.size(i), int(self._hashes[i])) for i in indices]
        return ScannedImages(self.root, records, max_pixels=self.max_pixels)

    def __len__(self) -> int:
        return len(self._hashes)

    def name(self, i: int) -> str:
        """Name relative to the root, as ``os.fsdecode`` gives it."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return os.fsdecode(self._names[self._ends[i] : self._ends[i + 1]])

    def size(self, i: int) -> tuple[int, int]:
        """(height, width) as displayed."""
        height, width = self._sizes[i]
        return int(height), int(width)

    def file_size(self, i: int) -> int:
        """Bytes of the file, as they are now. Raises UnreadableImage where it is gone."""
        name = self.name(i)
        return _stat(Path(self.root, name), name).st_size

    def content(self, i: int) -> bytes:
        """The file. Raises UnreadableImage where it is gone."""
        name = self.name(i)
        return _content(Path(self.root, name), name)

    def read(self, i: int) -> Pixels:
        """Decode photo i: uint8 (H, W, 3), RGB.

        Raises:
            UnreadableImage: the file is gone, damaged or of another size than in the scan. It is replaced by nothing.
        """
        name = self.name(i)
        pixels = decode(self.content(i), name, max_pixels=self.max_pixels)
        if pixels.shape[:2] != self.size(i):
            raise UnreadableImage(name, f"is {pixels.shape[:2]} (height, width) now, was {self.size(i)} in the scan")
        return pixels

    def hashes(self) -> dict[str, str]:
        """Name -> 16 hexadecimal digits that change with the file's bytes, as in ``images.csv``."""
        return {self.name(i): f"{int(self._hashes[i]):016x}" for i in range(len(self))}

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any name, any file's bytes, and their order; not with the root."""
        digest = xxhash.xxh64(self._ends.astype("<i8").tobytes())
        digest.update(self._names)
        digest.update(self._hashes.astype("<u8").tobytes())
        return digest.hexdigest()

    def write_csv(self, folder: str | os.PathLike[str]) -> None:
        """Write ``images.csv`` (index, name, height, width, hash) and ``skipped.csv`` (name, reason).

        UTF-8 with names byte for byte as in the file system: read them with ``errors="surrogateescape"``.
        """
        rows = ((i, self.name(i), *self.size(i), f"{int(self._hashes[i]):016x}") for i in range(len(self)))
        _write(Path(folder) / "images.csv", ("index", "name", "height", "width", "hash"), rows)
        _write(Path(folder) / "skipped.csv", ("name", "reason"), self.skipped)


class _Lines:
    """What csv.writer needs, over a file of bytes: it gives a row of text a call, which ends here with a newline alone.

    Told to end rows so, ``csv`` would leave a carriage return in a name without quotes.
    """

    def __init__(self, file: AppendFile) -> None:
        self._file = file

    def write(self, row: str) -> None:
        self._file.write((row.removesuffix("\r\n") + "\n").encode("utf-8", "surrogateescape"))


def _write(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    """A CSV file that appears under its name when it is complete."""
    with replacing(path) as file:
        writer = csv.writer(_Lines(file))
        writer.writerow(header)
        writer.writerows(rows)
