"""What a picture's file says before anything is decoded, and the damage that no decoder reports.

Pure functions of the bytes, with work and memory bounded by their number.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

MAX_PARTS = 10_000
"""Segments, chunks or blocks before the pixels: reading each of them in Python must not become a hang."""

MAX_SCANS = 100
"""Scans of a JPEG: each may cost a pass over the whole picture for a few bytes. Encoders write 1 to 15."""

_EXIF, _XMP = b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"
_ALL = (1 << 64) - 1
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What ends entropy-coded data: not a stuffed zero, a restart or a fill byte."""
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced PNG: first column and row, distance of columns and rows."""
_TAG_BYTES = (1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 1, 1, 8, 8, 8)
"""Size of a value by its TIFF type."""


class Refused(ValueError):
    """A reason that needs no translation."""


def kind_of(data: bytes) -> str:
    """Pillow's name of the format, by the first bytes. Few formats: EPS would run a program, text is no picture.

    Raises:
        Refused: none of them.
    """
    if not data:
        raise Refused("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PPM"
    raise Refused("not an image of a known kind (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, PPM)")


@dataclass(frozen=True)
class JpegLayout:
    """A JPEG's header."""

    metadata: bool
    """Whether it holds EXIF or XMP, which may turn the picture. Most photos of data sets have none."""
    progressive: bool
    components: tuple[int, ...]
    """Their ids; empty where no frame header was found."""
    first_scan: int
    """Offset of the first scan's marker; the length of the data where there is none."""


def jpeg_layout(data: bytes) -> JpegLayout:
    """Walk the segments before the first scan, over fill bytes and rubbish between them as decoders do.

    Raises:
        Refused: more than ``MAX_PARTS`` segments.
    """
    metadata, progressive = False, False
    components: tuple[int, ...] = ()
    at = 2
    for _ in range(MAX_PARTS):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return JpegLayout(metadata, progressive, components, len(data))
        marker = data[at + 1]
        if marker == 0xDA:
            return JpegLayout(metadata, progressive, components, at)
        if marker in (0x00, 0xFF) or marker in _BARE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xE1 and data.startswith((_EXIF, _XMP), at + 4):
            metadata = True
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 10 <= len(data):
            progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            components = tuple(data[at + 10 : at + 10 + 3 * data[at + 9] : 3])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise Refused(f"has more than {MAX_PARTS} segments before its pixels")


def _scans(data: bytes, layout: JpegLayout) -> tuple[list[bytes], int]:
    """Body of each scan's header, and the offset of the marker that ends the picture (or the data's length)."""
    headers: list[bytes] = []
    at = layout.first_scan
    for _ in range(MAX_PARTS):
        if at + 4 > len(data) or data[at + 1] == 0xD9:
            return headers, min(at, len(data))
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            headers.append(data[at + 4 : at + 2 + length])
            if len(headers) > MAX_SCANS:
                raise Refused(f"has more than {MAX_SCANS} scans: a decompression bomb")
        found = _MARKER.search(data, at + 2 + length)
        at = found.start() if found else len(data)
    raise Refused(f"has more than {MAX_PARTS} segments between its scans")


def check_scans(data: bytes, layout: JpegLayout) -> None:
    """Whether the scans bring every bit of every coefficient: decoders show what there is, without a word.

    Raises:
        Refused: scans are missing, as in a progressive file that was cut between two of them; or too many.
    """
    if not layout.progressive and data[layout.first_scan + 4 : layout.first_scan + 5] == bytes(
        [len(layout.components)]
    ):
        return  # the one scan of most photos holds all components
    done = dict.fromkeys(layout.components, 0)
    for header in _scans(data, layout)[0]:
        count = header[0] if header else 0
        ids, parameters = header[1 : 1 + 2 * count : 2], header[1 + 2 * count : 4 + 2 * count]
        if not layout.progressive:
            first, last, approximation = 0, 63, 0
        elif len(parameters) == 3:
            first, last, approximation = parameters[0], min(parameters[1], 63), parameters[2] & 15
        else:
            continue
        if approximation == 0:
            for component in ids:
                if component in done:
                    done[component] |= (_ALL >> (63 - last)) & (_ALL << first)
    if not all(bits == _ALL for bits in done.values()):
        raise Refused("truncated: the JPEG's last scans are missing")


def with_more_data(data: bytes, layout: JpegLayout) -> bytes:
    """The JPEG with made-up data at the end of its last scan: a decoder passes over it where the scan is complete.

    Its bits cannot be taken for the zeros with which decoders go on where data is missing.
    """
    plain = b"\xa5\x3c" * 512
    filler = plain + b"".join(bytes((0xFF, 0xD0 + n)) + plain for n in range(8)) * 2
    return data[: _scans(data, layout)[1]].rstrip(b"\xff") + filler + b"\xff\xd9"


def check_png(data: bytes) -> None:
    """Checksums of all that the picture needs, which Pillow does not compare for the pixels.

    Raises:
        Refused: a chunk is cut or damaged, or there are more than ``MAX_PARTS`` beside the pixels'.
    """
    at, others, pixels = 8, 0, False
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if pixels and kind != b"IDAT":
            return
        if at + 12 + length > len(data):
            break
        if not kind[0] & 0x20:  # critical: what is not needed for the picture is left to Pillow
            checksum = zlib.crc32(memoryview(data)[at + 4 : at + 8 + length])
            if checksum != int.from_bytes(data[at + 8 + length : at + 12 + length], "big"):
                raise Refused(f"damaged: the checksum of its {kind.decode('ascii', 'backslashreplace')} does not match")
        pixels = kind == b"IDAT"
        others += not pixels
        if others > MAX_PARTS:
            raise Refused(f"has more than {MAX_PARTS} chunks before its pixels")
        at += 12 + length
    if not pixels:
        raise Refused("truncated: the PNG's data ends too early")


def check_png_rows(data: bytes) -> None:
    """Inflate the pixels of a PNG that :func:`check_png` passed, keeping none of them, and count.

    Raises:
        Refused: there are fewer than its header names.
    """
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    expected = 0
    for x, y, dx, dy in passes:
        columns, rows = -((x - width) // dx), -((y - height) // dy)
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    stream, found, at = zlib.decompressobj(), 0, 8
    while at + 12 <= len(data) and found < expected and not stream.eof:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            rest: bytes = data[at + 8 : at + 8 + length]
            while rest and found < expected:
                found += len(stream.decompress(rest, 1 << 20))
                rest = stream.unconsumed_tail
        at += 12 + length
    if found < expected:
        raise Refused("truncated: the PNG has fewer rows than its header names")


def check_gif(data: bytes) -> None:
    """Count the blocks before the first frame.

    Raises:
        Refused: more than ten times ``MAX_PARTS``.
    """
    at = 13 + ((3 << (data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    blocks = 0
    while data[at : at + 1] == b"!":
        at += 2
        while at < len(data) and data[at] and blocks <= 10 * MAX_PARTS:
            at += 1 + data[at]
            blocks += 1
        at += 1
        blocks += 1
        if blocks > 10 * MAX_PARTS:
            raise Refused(f"has more than {10 * MAX_PARTS} blocks before its pixels")


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the canvas: opening the file in Pillow would already take the memory for it.

    Raises:
        Refused: no WebP header.
    """
    kind = data[12:16]
    if len(data) >= 30 and kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if len(data) >= 30 and kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if len(data) >= 25 and kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise Refused("damaged: its header cannot be read")


def check_tags(tiff: bytes) -> None:
    """Whether the values of a TIFF's first directory fit into the file: many tags may claim the same bytes again.

    Raises:
        Refused: together they claim more than there is.
    """
    order = "<" if tiff[:2] == b"II" else ">"
    big = tiff[2:4] in (b"+\0", b"\0+")
    offset, number, entry, inline = ("Q", "Q", "HHQ", 8) if big else ("L", "H", "HHL", 4)
    try:
        (at,) = struct.unpack_from(order + offset, tiff, 8 if big else 4)
        (count,) = struct.unpack_from(order + number, tiff, at)
    except struct.error:
        return  # no directory where it should be: Pillow says so
    at += struct.calcsize(order + number)
    step = struct.calcsize(order + entry) + inline
    claimed = 0
    for _ in range(min(count, (len(tiff) - at) // step)):
        _, kind, values = struct.unpack_from(order + entry, tiff, at)
        size = values * (_TAG_BYTES[kind] if kind < len(_TAG_BYTES) else 1)
        claimed += size if size > inline else 0
        at += step
    if claimed > len(tiff):
        raise Refused("damaged: its tags claim more bytes than there are")
