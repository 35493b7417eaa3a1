"""The usable photos of a data set, by index."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import xxhash

from cyborgs.data.decode import MAX_PIXELS, Pixels, UnreadableImage, decode, orientation
from cyborgs.data.scan import Scan
from cyborgs.errors import UserError
from cyborgs.files import AppendFile, replacing


class Images:
    """Random access to photos. Index i is row i of ``images.csv``.

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
    def from_scan(cls, scan: Scan, *, max_pixels: int = MAX_PIXELS) -> Images:
        """The usable photos of a scan, in its order."""
        return cls(scan.root, scan.images, scan.skipped, max_pixels=max_pixels)

    @classmethod
    def read_csv(cls, folder: str | os.PathLike[str], root: str | os.PathLike[str]) -> Images:
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

    def subset(self, indices: Sequence[int]) -> Images:
        """The photos at these indices, in this order, numbered anew; nothing is skipped."""
        records = [(self.name(i), *self.size(i), int(self._hashes[i])) for i in indices]
        return Images(self.root, records, max_pixels=self.max_pixels)

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

    def read(self, i: int) -> Pixels:
        """Decode photo i: uint8 (H, W, 3), RGB.

        Raises:
            UnreadableImage: the file is gone, damaged or of another size than in the scan. It is replaced by nothing.
        """
        name = self.name(i)
        try:
            data = Path(self.root, name).read_bytes()
        except OSError as error:
            raise UnreadableImage(name, f"cannot be opened: {error.strerror}") from error
        pixels = decode(data, name, max_pixels=self.max_pixels)
        if pixels.shape[:2] != self.size(i):
            raise UnreadableImage(name, f"is {pixels.shape[:2]} (height, width) now, was {self.size(i)} in the scan")
        return pixels

    def orientation(self, i: int) -> int:
        """EXIF orientation 1 to 8 of photo i, which ``read`` has applied; 1 where its file is gone."""
        try:
            return orientation(Path(self.root, self.name(i)).read_bytes())
        except OSError:
            return 1

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
