"""Read-only records by image id: one file that is written once and read at random by many workers (``store_format.py``)."""

from __future__ import annotations

import json
import operator
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xxhash

from cyborgs.data.store_format import (
    END,
    FOOTER,
    FOOTER_SIZE,
    HEADER,
    HEADER_SIZE,
    INDEX_ROWS,
    LARGEST,
    LEVEL,
    MAGIC,
    VERSION,
    StoreError,
    packed_checksum,
)
from cyborgs.files import AppendFile, cleared, rename, sync_folder, try_remove
from cyborgs.machine.disk_errors import why


class RecordWriter:
    """Writes one file of records. It has its final name only once :meth:`close` has returned.

    As a context manager it closes at the end, and leaves no file where the body raised. DiskError, from all methods,
    where the disk does not take it; nothing is left of the file then, and no more can be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, kind: str) -> None:
        self.path = Path(path)
        self.kind = kind
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._rows: list[tuple[int, int, int, int]] = []
        self._seen: set[int] = set()
        self._file: AppendFile | None = AppendFile(self._partial)
        header = HEADER.pack(MAGIC, VERSION, 0)
        with self._writing(HEADER_SIZE) as file:
            file.write(header + packed_checksum(header))
        self._offset = HEADER_SIZE

    def write(self, index: int, data: bytes) -> None:
        """Append the record of ``index`` (>= 0, each once; ValueError otherwise)."""
        self.write_stored(index, zlib.compress(data, LEVEL))

    def write_stored(self, index: int, stored: bytes) -> None:
        """Append a record as :meth:`RecordStore.read_stored` gave it: merging stores needs no new compression."""
        if self._file is None:
            raise ValueError(f"{self.path}: this writer is closed")
        index = operator.index(index)
        if index < 0 or index in self._seen:
            raise ValueError(f"{self.path}: record {index} {'is negative' if index < 0 else 'was written before'}")
        with self._writing(self._offset + len(stored)) as file:
            file.write(stored)
        self._seen.add(index)
        self._rows.append((index, self._offset, len(stored), xxhash.xxh64_intdigest(stored)))
        self._offset += len(stored)

    def __len__(self) -> int:
        return len(self._rows)

    def close(self, meta: Mapping[str, Any] | None = None) -> None:
        """Write the index and ``meta`` (what JSON holds), flush to the disk, and give the file its name.

        A second call does nothing.
        """
        if self._file is None:
            return
        index = np.array(sorted(self._rows), dtype="<u8").reshape(-1, INDEX_ROWS).T.tobytes()
        text = json.dumps({"kind": self.kind, "meta": dict(meta or {})}, sort_keys=True).encode()
        footer = FOOTER.pack(self._offset, len(self._rows), len(text), xxhash.xxh64_intdigest(index + text))
        end = index + text + footer + packed_checksum(footer) + END
        with self._writing(self._offset + len(end)) as file:
            file.write(end)
            file.sync()
            file.close()
            rename(self._partial, self.path)
        self._file = None
        sync_folder(self.path.parent)

    @contextmanager
    def _writing(self, needed: int) -> Iterator[AppendFile]:
        """The file; where the body fails it goes, so that the message can say what the disk has without it."""
        assert self._file is not None
        with cleared(self._partial, self.path, needed):
            try:
                yield self._file
            except BaseException:
                self._file.close()
                raise

    def abort(self) -> None:
        """Drop what was written, unless it is complete already."""
        if self._file is not None:
            self._file.close()
            self._file = None
            try_remove(self._partial)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.abort()


class RecordStore:
    """Reads a file that :class:`RecordWriter` left: ``read(index) -> bytes``.

    Reads are by position (``os.pread``), so threads and forked workers may share one store. Pickled, it is its path
    and its checksum: the copy opens the file at its first read, and refuses another one that took its place.
    Opening raises :class:`StoreError` where the file is missing, cut short, damaged, newer or of another ``kind``.
    """

    def __init__(self, path: str | os.PathLike[str], *, kind: str | None = None) -> None:
        self.path = Path(path)
        self._kind = kind
        self._identity: int | None = None
        self._descriptor: int | None = None
        self._open()

    def _open(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise StoreError(self.path, f"cannot be opened ({why(error)})") from error
        # Not a file object: one that is left to the garbage collector warns.
        closer = weakref.finalize(self, os.close, descriptor)
        try:
            self._read_index(descriptor)
        except BaseException:
            closer()
            raise
        self._closer = closer
        self._descriptor = descriptor

    def _read_index(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        header = self._bytes(descriptor, min(HEADER_SIZE, size), 0)
        if size < HEADER_SIZE:
            raise StoreError(self.path, f"is cut short: its {size} bytes are less than a header")
        magic, version, _ = HEADER.unpack(header[: HEADER.size])
        if magic != MAGIC:
            raise StoreError(self.path, "is no record store (its first bytes are others)")
        if header[HEADER.size :] != packed_checksum(header[: HEADER.size]):
            raise StoreError(self.path, "is damaged: the header's checksum does not match")
        if version != VERSION:
            raise StoreError(self.path, f"has format {version}, this version of cyborgs reads format {VERSION}")
        footer = self._bytes(descriptor, FOOTER_SIZE, size - FOOTER_SIZE) if size >= HEADER_SIZE + FOOTER_SIZE else b""
        if footer[-len(END) :] != END:
            raise StoreError(self.path, f"is cut short: it ends after {size} bytes without an index")
        if footer[FOOTER.size : -len(END)] != packed_checksum(footer[: FOOTER.size]):
            raise StoreError(self.path, "is damaged: the footer's checksum does not match")
        start, count, meta_length, checksum = FOOTER.unpack(footer[: FOOTER.size])
        index_length = 8 * INDEX_ROWS * count
        missing = start + index_length + meta_length + FOOTER_SIZE - size
        if start < HEADER_SIZE or missing:
            raise StoreError(self.path, f"is damaged: its length is {-missing:+} bytes off")
        tail = self._bytes(descriptor, index_length + meta_length, start)
        if xxhash.xxh64_intdigest(tail) != checksum:
            raise StoreError(self.path, "is damaged: the index's checksum does not match")
        if self._identity not in (None, checksum):
            raise StoreError(self.path, "is another file than the one that was opened before")
        try:
            described = json.loads(tail[index_length:])
            described["kind"], described["meta"].keys()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise StoreError(self.path, "is damaged: it does not say what it holds") from error
        if self._kind not in (None, described["kind"]):
            raise StoreError(self.path, f"holds {described['kind']!r}, not {self._kind!r}")
        self._identity = checksum
        self._kind = described["kind"]
        self._meta: dict[str, Any] = described["meta"]
        self._index = np.frombuffer(tail[:index_length], "<u8").reshape(INDEX_ROWS, count)
        offsets, lengths = self._index[1], self._index[2]
        if count and ((offsets > start) | (lengths > np.uint64(start) - np.minimum(offsets, start))).any():
            raise StoreError(self.path, "is damaged: a record reaches beyond the records")
        self._dense = count == 0 or int(self._index[0, -1]) == count - 1

    @property
    def meta(self) -> dict[str, Any]:
        """What the writer added."""
        return self._loaded()._meta

    @property
    def indices(self) -> np.ndarray:
        """int64 (n,): the ids of all records, in rising order."""
        ids: np.ndarray = self._loaded()._index[0].astype(np.int64)
        return ids

    def __len__(self) -> int:
        return self._loaded()._index.shape[1]

    def __contains__(self, index: object) -> bool:
        return isinstance(index, (int, np.integer)) and self._loaded()._row(int(index)) is not None

    def read(self, index: int) -> bytes:
        """The record of ``index``. IndexError where there is none, StoreError where its bytes are damaged."""
        stored = self.read_stored(index)
        try:
            stream = zlib.decompressobj()
            data = stream.decompress(stored, LARGEST)
            if not stream.eof:
                raise zlib.error("it is cut, or inflates to more than any map")
            return data
        except zlib.error as error:
            raise StoreError(self.path, f"record {index} cannot be decompressed ({error})") from error

    def read_stored(self, index: int) -> bytes:
        """The record of ``index`` as it lies in the file (compressed), its checksum checked."""
        index = operator.index(index)
        row = self._loaded()._row(index)
        if row is None:
            raise IndexError(f"{self.path}: there is no record {index} among {len(self)}")
        assert self._descriptor is not None
        _, offset, length, checksum = (int(value) for value in self._index[:, row])
        stored = self._bytes(self._descriptor, length, offset)
        if xxhash.xxh64_intdigest(stored) != checksum:
            raise StoreError(self.path, f"is damaged: the checksum of record {index} does not match")
        return stored

    def verify(self) -> None:
        """Read the whole file once, as it is now; StoreError at the first thing that is damaged."""
        self._loaded()
        assert self._descriptor is not None
        self._read_index(self._descriptor)
        for index in self.indices:
            self.read(int(index))

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        if self._descriptor is not None:
            self._descriptor = None
            self._closer()

    def _loaded(self) -> RecordStore:
        if self._descriptor is None:
            self._open()
        return self

    def _row(self, index: int) -> int | None:
        ids = self._index[0]
        if index < 0 or not len(ids) or index > int(ids[-1]):
            return None
        # Ids rise and are distinct, so where the last one is n - 1 each stands at its own place.
        row = index if self._dense else int(np.searchsorted(ids, np.uint64(index)))
        return row if int(ids[row]) == index else None

    def _bytes(self, descriptor: int, length: int, offset: int) -> bytes:
        """Up to ``length`` bytes; fewer only at the end of the file (one call gives at most 2 GiB)."""
        parts = []
        try:
            while length > 0 and (part := os.pread(descriptor, length, offset)):
                parts.append(part)
                length -= len(part)
                offset += len(part)
        except OSError as error:
            raise StoreError(self.path, f"cannot be read ({why(error)})") from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __getstate__(self) -> tuple[Path, str | None, int | None]:
        return self.path, self._kind, self._identity

    def __setstate__(self, state: tuple[Path, str | None, int | None]) -> None:
        self.path, self._kind, self._identity = state
        self._descriptor = None
