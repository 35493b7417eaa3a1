"""The file of a record store: what stands where in it.

Layout, little-endian::

    header   magic (8), version u32, reserved u32, xxhash64 of the 16 bytes before (8)
    records  zlib streams, back to back, in the order in which they were written
    index    u64 (4, n): ids in rising order, offsets, lengths, xxhash64 of each record's stored bytes
    meta     JSON: the kind of the records and what the writer adds
    footer   offset of the index, n, length of the meta, xxhash64 of index and meta,
             xxhash64 of the 32 bytes before (u64 each), end magic (8)

Nothing in it depends on time, path or process: the same records written in the same order give the same bytes.
The index comes last, so that a file is only ever appended to; a file without its footer is not complete.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import xxhash

from cyborgs.errors import UserError, printable

VERSION: Final = 1
MAGIC: Final = b"CYBRECRD"
END: Final = b"DRCERBYC"
HEADER: Final = struct.Struct("<8sII")
FOOTER: Final = struct.Struct("<QQQQ")
CHECKSUM: Final = struct.Struct("<Q")
HEADER_SIZE: Final = HEADER.size + CHECKSUM.size
FOOTER_SIZE: Final = FOOTER.size + CHECKSUM.size + len(END)
INDEX_ROWS: Final = 4
# Measured on label maps of photos: level 9 gains 0.2%, lzma 7% at 250 times the time.
LEVEL: Final = 6
# Of a record, inflated: a map of a cell a pixel of the largest photo has 171 MiB.
LARGEST: Final = 1 << 28


class StoreError(UserError):
    """A store that is missing, damaged, incomplete or of another kind; the message names the file."""

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        super().__init__(path, what)
        self.path = Path(path)
        self.what = what

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.what}")


def packed_checksum(data: bytes) -> bytes:
    """xxhash64 of the data, 8 bytes."""
    return CHECKSUM.pack(xxhash.xxh64_intdigest(data))
