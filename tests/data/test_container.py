"""What files say of themselves, against what decoders find."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from PIL import Image

from cyborgs.data import container, decode
from cyborgs.data.container import Refused
from tests.data.corpus import bombs, chunk, claims, originals, png, riff, tiff, viewer

FILES = originals()


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("webp")])
def test_size_of_webp(name: str) -> None:
    assert container.webp_size(FILES[name][1]) == (64, 48)
    for length in range(30):
        with pytest.raises(Refused):
            container.webp_size(FILES[name][1][:12] + b"VP9 " + bytes(length))


def test_huge_webp_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened by Pillow, an animation takes the memory of its canvas at once."""
    huge = [case for case in claims() if case.kind == "WEBP"]
    assert len(huge) == 3

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(Image, "open", opened)
    for case in huge:
        with pytest.raises(decode.UnreadableImage, match=r"claims \d{5} x \d{5} pixels"):
            decode.decode(case.data, case.name)


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("jpeg")])
def test_layout_of_jpeg(name: str) -> None:
    data = FILES[name][1]
    layout = container.jpeg_layout(data)
    assert layout.first_scan == data.index(b"\xff\xda")
    assert layout.progressive == (name == "jpeg-progressive")
    assert len(layout.components) == {"jpeg-grey": 1, "jpeg-cmyk": 4, "jpeg-ycck": 4}.get(name, 3)
    assert not layout.metadata
    container.check_scans(data, layout)
    # Data that is made up changes nothing where all is there, and much where the end is missing.
    np.testing.assert_array_equal(viewer(container.with_more_data(data, layout)), viewer(data))
    if layout.progressive:  # made-up scans are soon refused
        return
    cut = data[: (layout.first_scan + len(data)) // 2] + b"\xff\xd9"
    cut_layout = container.jpeg_layout(cut)
    assert (viewer(container.with_more_data(cut, cut_layout)) != viewer(cut)).any()


@pytest.mark.parametrize("cut", [False, True])
def test_every_place_of_a_small_jpeg(cut: bool) -> None:
    """Cut at each byte of the scans and ended as if it were whole, with a first warning that hides the second."""
    for name in ("jpeg-progressive", "jpeg-restart"):
        data = FILES[name][1]
        if cut:
            data = data[:2] + b"rubbish" + data[2:]
        for at in range(data.index(b"\xff\xda"), len(data) - 2, 1 if not cut else 5):
            with pytest.raises(decode.UnreadableImage):
                decode.decode(data[:at] + b"\xff\xd9", name)


def test_rubbish_in_a_whole_jpeg_is_passed_over() -> None:
    for name, (kind, data) in FILES.items():
        if kind == "JPEG" and "k" not in name:
            at = data.index(b"\xff\xdb")
            stuffed = data[:at] + b"rubbish" + data[at:]
            np.testing.assert_array_equal(decode.decode(stuffed, name), decode.decode(data, name))


def test_tags_may_use_every_byte_once() -> None:
    container.check_tags(tiff([(1000, 1, 100, 8)], bytes(100)))
    container.check_tags(tiff([(1000, 1, 4, 0), (1001, 4, 1, 0)] * 50))  # values inside the directory
    with pytest.raises(Refused, match="more bytes than there are"):
        container.check_tags(tiff([(1000 + i, 1, 100, 8) for i in range(20)], bytes(100)))
    for data in (b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II+\0" + bytes(20)):
        container.check_tags(data)


def test_checksums_of_png() -> None:
    data = FILES["png-palette"][1]
    container.check_png(data)
    for name in (b"IHDR", b"PLTE", b"IDAT"):
        at = data.index(name) + 5
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(Refused, match=f"checksum of its {name.decode()}"):
            container.check_png(damaged)
    container.check_png(data[:-12])  # without its end all pixels are there
    with pytest.raises(Refused, match="too early"):
        container.check_png(data[: data.index(b"IDAT") + 9])
    assert chunk(b"IEND", b"") == data[-12:]


def test_memory_is_bounded_by_kind() -> None:
    """64 million pixels: fine for most kinds, too much for WebP's decoder."""
    canvas = bytes(4) + (7_999).to_bytes(3, "little") * 2
    with pytest.raises(decode.UnreadableImage, match="take 1220 MB to decode, more than the limit of 1024"):
        decode.decode(riff((b"VP8X", canvas), (b"VP8L", b"\x2f" + bytes(12))), "flat.webp")
    with pytest.raises(decode.UnreadableImage, match="truncated"):  # the limit of a PNG is another
        decode.decode(png(8_000, 8_000, zlib.compress(b"")), "flat.png")


def test_damage_inside_a_scan_is_told() -> None:
    """Pillow passes over codes that stand for nothing, and shows grey or other colours from there on."""
    data = FILES["jpeg"][1]
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    damaged = data[:middle] + b"\xff\0" * 8 + data[middle + 16 :]  # 64 ones: no code of the standard tables
    assert viewer(damaged).shape == (48, 64, 3)
    with pytest.raises(decode.UnreadableImage, match="damaged: Corrupt JPEG data: bad Huffman code"):
        decode.decode(damaged, "photo")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("scans.jpg", "more than 100 scans"),
        ("segments.jpg", "more than 10000 segments"),
        ("chunks.png", "more than 10000 chunks"),
        ("blocks.gif", "more than 100000 blocks"),
        ("tags.tif", "tags claim more bytes"),
    ],
)
def test_work_for_nothing_is_refused(name: str, reason: str) -> None:
    case = next(case for case in bombs() if case.name == name)
    with pytest.raises(decode.UnreadableImage, match=reason):
        decode.decode(case.data, case.name)
