"""Odd, damaged and hostile pictures, made from a seed: what they are, and what may become of them.

``whole``     must be read: as the pixels given here, or where there are none as an independent viewer shows it
``complete``  must be read as the undamaged original, or refused
``viewer``    must be read as an independent viewer shows it, or refused: no checksum tells such damage from a picture
``refused``   must be refused
``bomb``      must be refused from the header, at once
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

Pixels = np.ndarray
Fate = Literal["whole", "complete", "viewer", "refused", "bomb"]
SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp"}


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    harm: str
    data: bytes
    fate: Fate
    pixels: Pixels | None = None
    """What must come out; None: what the viewer shows."""
    levels: int = 0
    """Largest allowed difference from ``pixels``."""


def texture(seed: int, h: int = 48, w: int = 64) -> Pixels:
    """Different in every corner and channel, smooth with noise."""
    y, x = np.mgrid[0:h, 0:w]
    smooth = np.stack([x * 255 // (w - 1), y * 255 // (h - 1), (x + y) * 200 // (w + h)], -1)
    return np.clip(smooth + np.random.default_rng(seed).integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def viewer(data: bytes) -> Pixels:
    """uint8 (H, W, 3) as Pillow alone shows it, upright over white; whatever it raises where it does not."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("more than 16 bits")
        return np.repeat((values // 256).astype(np.uint8)[..., None], 3, 2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


PNG = b"\x89PNG\r\n\x1a\n"


def png(w: int, h: int, body: bytes, *extra: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose compressed data is ``body``."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0))
    return PNG + head + b"".join(extra) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(tags: list[tuple[int, int, int, int]], body: bytes = b"") -> bytes:
    """A little-endian TIFF whose directory follows the body: tags are (id, type, count, value)."""
    entries = b"".join(struct.pack("<HHLL", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<L", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def ink(rgb: Pixels) -> Pixels:
    return np.concatenate([255 - rgb, np.zeros_like(rgb[..., :1])], -1)


def originals() -> dict[str, tuple[str, bytes]]:
    """Undamaged files by a short name, with their kind."""
    pixels = texture(0)
    image, turned = Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())
    grey, few = image.convert("L"), image.quantize(16)
    rgba = Image.fromarray(np.dstack([pixels, pixels[..., 0]]))
    frames = {"save_all": True, "append_images": [turned]}
    wide = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    files: dict[str, tuple[str, bytes]] = {
        "jpeg": ("JPEG", encoded(image, "JPEG", quality=80)),
        "jpeg-progressive": ("JPEG", encoded(image, "JPEG", quality=80, progressive=True)),
        "jpeg-restart": ("JPEG", encoded(image, "JPEG", quality=80, restart_marker_rows=1)),
        "jpeg-grey": ("JPEG", encoded(grey, "JPEG", quality=80)),
        "jpeg-cmyk": ("JPEG", encoded(Image.fromarray(ink(pixels), mode="CMYK"), "JPEG", quality=90)),
        "jpeg-ycck": ("JPEG", simplejpeg.encode_jpeg(np.ascontiguousarray(255 - ink(pixels)), 90, "CMYK")),
        "png": ("PNG", encoded(image, "PNG")),
        "png-palette": ("PNG", encoded(few, "PNG", transparency=3)),
        "png-alpha": ("PNG", encoded(rgba, "PNG")),
        "png-16": ("PNG", encoded(wide, "PNG")),
        "png-animated": ("PNG", encoded(image, "PNG", **frames)),
        "webp": ("WEBP", encoded(image, "WEBP")),
        "webp-lossless": ("WEBP", encoded(image, "WEBP", lossless=True)),
        "webp-alpha": ("WEBP", encoded(rgba, "WEBP")),
        "webp-animated": ("WEBP", encoded(image, "WEBP", **frames)),
        "gif": ("GIF", encoded(image, "GIF")),
        "gif-animated": ("GIF", encoded(image, "GIF", **frames)),
        "gif-transparent": ("GIF", encoded(few, "GIF", transparency=2)),
        "tiff": ("TIFF", encoded(image, "TIFF")),
        "tiff-16": ("TIFF", encoded(wide, "TIFF")),
        "bmp": ("BMP", encoded(image, "BMP")),
        "bmp-palette": ("BMP", encoded(few, "BMP")),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"):
        source = image.convert("1") if compression == "group4" else image
        files[f"tiff-{compression}"] = ("TIFF", encoded(source, "TIFF", compression=compression))
    return files


def corpus(seed: int = 0) -> list[Case]:
    """All cases, in one order: the same for a seed wherever it runs."""
    rng = np.random.default_rng(seed)
    files = originals()
    return [
        *_undamaged(files),
        *_turned(),
        *_cut(files, rng),
        *_cut_and_mended(files, rng),
        *_flipped(files, rng),
        *_lengths(files),
        *claims(),
        *bombs(),
    ]


def _undamaged(files: dict[str, tuple[str, bytes]]) -> Iterator[Case]:
    suffixes = list(SUFFIX.values())
    for i, (name, (kind, data)) in enumerate(files.items()):
        yield Case(f"{name}.{SUFFIX[kind]}", kind, "none", data, "whole", viewer(data))
        yield Case(f"{name}-misnamed.{suffixes[i % 6]}", kind, "wrong extension", data, "whole", viewer(data))
    for kind, data in (files["png"], files["webp-lossless"], files["tiff"], files["bmp"], files["png-animated"]):
        yield Case(f"exact-{kind}-{len(data)}.{SUFFIX[kind]}", kind, "none", data, "whole", texture(0))
    for name in ("jpeg-cmyk", "jpeg-ycck"):  # inks are not inverted
        yield Case(f"{name}-inks.jpg", "JPEG", "none", files[name][1], "whole", texture(0), levels=90)


TURNS = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


def _turned() -> Iterator[Case]:
    image = Image.fromarray(texture(1))
    for value, turn in TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = value
        for kind, options in (("JPEG", {"quality": 90}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
            plain = viewer(encoded(image, kind, **options))
            data = encoded(image, kind, exif=exif, **options)
            yield Case(f"turned-{value}.{SUFFIX[kind]}", kind, "orientation", data, "whole", turn(plain))


def _cut(files: dict[str, tuple[str, bytes]], rng: np.random.Generator) -> Iterator[Case]:
    for name, (kind, data) in files.items():
        places = [int(rng.integers(1, 30)), len(data) - 1, len(data) - int(rng.integers(2, 12))]
        places += [int(x) for x in rng.integers(30, len(data) - 12, 3)]
        for at in places:
            yield Case(f"{name}-cut-{at}.{SUFFIX[kind]}", kind, "cut", data[:at], "complete", viewer(data))


def _cut_and_mended(files: dict[str, tuple[str, bytes]], rng: np.random.Generator) -> Iterator[Case]:
    """Cuts that are hidden: the end marker, length or checksum is put right, as tools do that save what they can."""
    for name, (kind, data) in files.items():
        whole = viewer(data)
        if kind == "JPEG":
            start = data.index(b"\xff\xda")
            first = data.index(b"\xff\xdb")
            places = [int(x) for x in rng.integers(start + 20, len(data) - 4, 4)]
            if name == "jpeg-progressive":  # between two scans
                places.append(data.index(b"\xff\xda", start + 2))
            if name == "jpeg-restart":  # where a restart is due
                places.append(data.index(b"\xff\xd1", start))
            for at in places:
                ended = data[:at] + b"\xff\xd9"
                yield Case(f"{name}-ended-{at}.jpg", kind, "cut and mended", ended, "refused")
                rubbish = ended[:first] + b"rubbish" + ended[first:]  # a first warning hides the second
                yield Case(f"{name}-rubbish-{at}.jpg", kind, "cut and mended", rubbish, "refused")
        elif kind == "GIF":
            for at in (
                rng.integers(len(data) // 3, len(data) // 2 - 300, 3)
                if "anim" in name
                else rng.integers(900, len(data) - 9, 3)
            ):
                yield Case(f"{name}-ended-{at}.gif", kind, "cut and mended", data[:at] + b"\0;", "complete", whole)
        elif name in ("webp", "webp-lossless"):
            for at in (int(x) for x in rng.integers(40, len(data) - 4, 3)):
                mended = riff((data[12:16], data[20:at]))
                yield Case(f"{name}-mended-{at}.webp", kind, "cut and mended", mended, "complete", whole)
    rows = b"".join(b"\0" + row.tobytes() for row in texture(0))
    stream = zlib.compress(rows)
    for share in (0.1, 0.5, 0.9, 0.99):
        short = png(64, 48, zlib.compress(rows[: int(len(rows) * share)]))
        yield Case(f"png-rows-{share}.png", "PNG", "cut and mended", short, "refused")
        cut = png(64, 48, stream[: int(len(stream) * share)])
        yield Case(f"png-stream-{share}.png", "PNG", "cut and mended", cut, "refused")

    body = texture(0)[..., 0].tobytes()
    tags = [(256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 24), (279, 4, 1, 64 * 24)]
    yield Case("tiff-one-strip-of-two.tif", "TIFF", "cut and mended", tiff(tags, body[: 64 * 24]), "refused")
    longer = [(257, 4, 1, 96) if tag[0] == 257 else tag for tag in tags]
    yield Case("tiff-one-strip-of-four.tif", "TIFF", "cut and mended", tiff(longer, body), "refused")


def _flipped(files: dict[str, tuple[str, bytes]], rng: np.random.Generator) -> Iterator[Case]:
    for name, (kind, data) in files.items():
        for number in range(5):
            damaged = bytearray(data)
            for _ in range(1 + number % 3):
                damaged[rng.integers(len(data) if number else 100)] ^= 1 << rng.integers(8)
            # PNG has checksums: what is shown is the original.
            fate, pixels = ("complete", viewer(data)) if kind == "PNG" else ("viewer", None)
            yield Case(f"{name}-flip-{number}.{SUFFIX[kind]}", kind, "flipped bits", bytes(damaged), fate, pixels)


def _lengths(files: dict[str, tuple[str, bytes]]) -> Iterator[Case]:
    def changed(name: str, at: int, form: str, value: int) -> bytes:
        data = bytearray(files[name][1])
        struct.pack_into(form, data, at, value)
        return bytes(data)

    jpeg = files["jpeg"][1]
    tables, frame, scan = (jpeg.index(bytes((0xFF, m))) for m in (0xDB, 0xC0, 0xDA))
    for where, at in (("tables", tables), ("frame", frame), ("scan", scan), ("start", 2)):
        for length in (0, 2, 3, 40, 0xFFFF):
            data = changed("jpeg", at + 2, ">H", length)
            yield Case(f"jpeg-{where}-{length}.jpg", "JPEG", "wrong length", data, "viewer")
    yield Case("jpeg-higher.jpg", "JPEG", "wrong length", changed("jpeg", frame + 5, ">H", 96), "refused")
    yield Case("jpeg-lower.jpg", "JPEG", "wrong length", changed("jpeg", frame + 5, ">H", 40), "viewer")
    for length in (0, 1, 12, 10**6, 2**31, 2**32 - 1):
        for where, at in (("header", 8), ("pixels", files["png"][1].index(b"IDAT") - 4)):
            if (where, length) != ("header", 13):
                data = changed("png", at, ">I", length)
                yield Case(f"png-{where}-{length}.png", "PNG", "wrong length", data, "refused")
        for where, at in (("riff", 4), ("chunk", 16)):
            data = changed("webp", at, "<I", length)
            yield Case(f"webp-{where}-{length}.webp", "WEBP", "wrong length", data, "viewer")
        for where, at in (("file", 2), ("offset", 10), ("header", 14), ("pixels", 34)):
            data = changed("bmp", at, "<I", length)
            yield Case(f"bmp-{where}-{length}.bmp", "BMP", "wrong length", data, "viewer")
    yield Case("png-higher.png", "PNG", "wrong length", png(64, 96, zlib.compress(bytes(48 * 193))), "refused")
    raw = files["tiff"][1]
    (directory,) = struct.unpack_from("<L", raw, 4)
    (count,) = struct.unpack_from("<H", raw, directory)
    for entry in range(count):
        at = directory + 2 + 12 * entry
        (tag,) = struct.unpack_from("<H", raw, at)
        for value in (0, 1, 100, 2**32 - 1):
            yield Case(
                f"tiff-tag{tag}-{value}.tif", "TIFF", "wrong length", changed("tiff", at + 8, "<L", value), "viewer"
            )
    start = files["gif"][1].index(b",")
    for value in (0, 1, 32, 63, 65, 1000):
        data = changed("gif", start + 5, "<H", value)
        yield Case(f"gif-frame-{value}.gif", "GIF", "wrong length", data, "viewer")


def claims() -> Iterator[Case]:
    """Files of some hundred bytes that claim a picture of gigabytes."""
    jpeg = bytearray(encoded(Image.new("L", (8, 8)), "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 56_321, 7_789)
    assert len(jpeg) < 400
    side = 60_000
    rows = zlib.compress(bytes(10**6))
    gif = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\0;"
    extended = bytes(4) + (side - 1).to_bytes(3, "little") * 2
    frame = bytes(6) + (side - 1).to_bytes(3, "little") * 2 + bytes(4)
    webp = riff((b"VP8X", b"\x02" + extended[1:]), (b"ANIM", bytes(6)), (b"ANMF", frame + b"VP8L" + bytes(12)))
    still = riff((b"VP8X", bytes(1) + extended[1:]), (b"VP8L", b"\x2f" + bytes(12)))
    lossy = riff((b"VP8 ", b"\x30\1\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(20)))
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 154, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, 100)]
    for name, data in {
        "jpeg.jpg": bytes(jpeg),
        "png.png": png(side, side, rows),
        "png-grey.png": png(side, side, rows, depth=1, colour=0),
        "gif.gif": gif,
        "webp-animated.webp": webp,
        "webp.webp": still,
        "webp-lossy.webp": lossy,
        "bmp.bmp": bmp + bytes(100),
        "tiff.tif": tiff(tags, bytes(100)),
        "tiff-packed.tif": tiff([(259, 3, 1, 8) if t[0] == 259 else t for t in tags], bytes(100)),
    }.items():
        kind = next(k for k, suffix in SUFFIX.items() if name.endswith(suffix))
        yield Case(f"huge-{name}", kind, "huge size", data, "bomb")


def bombs() -> Iterator[Case]:
    """Small files that ask for much work or memory elsewhere than in their size."""
    pixels, image = texture(2), Image.fromarray(texture(2))
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    zeros = zlib.compress(bytes(8 << 20))
    yield Case(
        "inflates.png",
        "PNG",
        "bomb",
        png(5000, 5000, zlib.compress(bytes(626 * 5000)), depth=1, colour=0),
        "whole",
        np.zeros((5000, 5000, 3), np.uint8),
    )
    yield Case("longer.png", "PNG", "bomb", png(64, 48, zlib.compress(bytes(193 * 48) + bytes(8 << 20))), "viewer")
    for name in (b"iCCP", b"zTXt"):
        data = png(64, 48, rows, chunk(name, b"name\0\0" + zeros))
        yield Case(f"{name.decode()}.png", "PNG", "bomb", data, "complete", pixels)
    empty = chunk(b"tEXt", b"a\0b")
    yield Case("chunks.png", "PNG", "bomb", png(64, 48, rows, empty * 20_000), "refused")
    jpeg = encoded(image, "JPEG", progressive=True)
    end = jpeg.rindex(b"\xff\xda")
    yield Case("scans.jpg", "JPEG", "bomb", jpeg[:-2] + jpeg[end:-2] * 200 + b"\xff\xd9", "refused")
    yield Case("segments.jpg", "JPEG", "bomb", jpeg[:2] + b"\xff\xfe\0\2" * 300_000 + jpeg[2:], "refused")
    gif = encoded(image, "GIF")
    first = gif.index(b",", 13 + 768)
    yield Case("blocks.gif", "GIF", "bomb", gif[:first] + b"!\xfe" + b"\1x" * 300_000 + b"\0" + gif[first:], "refused")
    body = bytes(200_000)
    again = [(tag, 1, 200_000, 8) for tag in range(40_000, 48_000)]
    size = [(256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    size += [(277, 3, 1, 1), (278, 4, 1, 48), (279, 4, 1, 64 * 48)]
    yield Case("tags.tif", "TIFF", "bomb", tiff(size + again, body), "refused")
    exif = b"Exif\0\0" + tiff([(tag, 1, 40_000, 8) for tag in range(40_000, 42_000)], bytes(40_000))
    plain = encoded(image, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    yield Case("exif.jpg", "JPEG", "bomb", plain[:2] + segment + plain[2:], "whole", viewer(plain))
