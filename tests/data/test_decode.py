"""One test per kind of file: pixels as a viewer shows them, or an error that names the file."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from cyborgs.data.decode import BACKGROUND, UnreadableImage, decode
from cyborgs.data.decode import orientation as orientation_of

Pixels = np.ndarray


def scene(h: int = 48, w: int = 64) -> Pixels:
    """A smooth picture that differs in every corner and channel."""
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x * 255 // (w - 1), y * 255 // (h - 1), (x + y) * 200 // (w + h)], -1).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def assert_close(data: bytes, expected: Pixels, levels: float, **options: int) -> None:
    got = decode(data, "photo", **options)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= levels


def refused(data: bytes, name: str = "folder/photo.jpg", **options: int) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(data, name, **options)
    assert caught.value.name == name
    assert str(caught.value) == f"{name}: {caught.value.reason}."
    assert "0x" not in caught.value.reason  # no address: skipped.csv must be the same in every run
    return caught.value.reason


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(progressive: bool) -> None:
    assert_close(encoded(Image.fromarray(scene()), "JPEG", quality=95, progressive=progressive), scene(), 12)


def test_grey_jpeg_and_png() -> None:
    grey = scene()[..., 0]
    expected = np.repeat(grey[..., None], 3, 2)
    assert_close(encoded(Image.fromarray(grey), "JPEG", quality=95), expected, 6)
    assert_close(encoded(Image.fromarray(grey), "PNG"), expected, 0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_colour(kind: str) -> None:
    assert_close(encoded(Image.fromarray(scene()), kind), scene(), 0)


def test_webp() -> None:
    assert_close(encoded(Image.fromarray(scene()), "WEBP", lossless=True), scene(), 0)


@pytest.mark.parametrize("mode", ["1", "LAB"])
def test_two_colours_and_what_pillow_cannot_convert(mode: str) -> None:
    image = Image.fromarray(scene())
    if mode == "1":
        data = encoded(image.convert("1"), "PNG")
        assert_close(data, np.array(image.convert("1").convert("RGB")), 0)
    else:
        lab = Image.fromarray(scene(), mode="RGB").convert("YCbCr")
        assert_close(encoded(lab, "TIFF"), scene(), 4)


def cmyk(rgb: Pixels) -> Pixels:
    """Ink without black: what every viewer turns back to the same red, green and blue."""
    return np.concatenate([255 - rgb, np.zeros_like(rgb[..., :1])], -1)


def test_cmyk_jpeg_is_not_inverted() -> None:
    data = encoded(Image.fromarray(cmyk(scene()), mode="CMYK"), "JPEG", quality=97)
    assert simplejpeg.decode_jpeg_header(data)[2] == "CMYK"
    assert_close(data, scene(), 12)


def test_ycck_jpeg_is_not_inverted() -> None:
    # Adobe's files hold inverted ink; libjpeg writes what it is given.
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(255 - cmyk(scene())), quality=97, colorspace="CMYK")
    assert simplejpeg.decode_jpeg_header(data)[2] == "YCCK"
    assert_close(data, scene(), 14)


def test_cmyk_black_ink_darkens() -> None:
    ink = np.zeros((40, 40, 4), np.uint8)
    ink[..., 3] = 255
    assert_close(encoded(Image.fromarray(ink, mode="CMYK"), "JPEG"), np.zeros((40, 40, 3), np.uint8), 3)
    assert_close(encoded(Image.fromarray(ink, mode="CMYK"), "TIFF"), np.zeros((40, 40, 3), np.uint8), 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_rgba_over_the_background(kind: str) -> None:
    alpha = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, 0)
    a = alpha[..., None] / 255
    expected = scene() * a + BACKGROUND * (1 - a)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert_close(encoded(Image.fromarray(np.dstack([scene(), alpha])), kind, **options), np.rint(expected), 1)


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [Image.new("L", (5, 4), 10), Image.new("L", (5, 4), 0)])
    assert_close(encoded(image, "PNG"), np.full((4, 5, 3), BACKGROUND), 0)


def test_palette() -> None:
    image = Image.fromarray(scene()).quantize(16)
    expected = np.array(image.convert("RGB"))
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert_close(encoded(image, kind), expected, 0)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_a_transparent_colour(kind: str) -> None:
    image = Image.fromarray(scene()).quantize(16)
    index = np.array(image)
    expected = np.array(image.convert("RGB"))
    expected[index == index[0, 0]] = BACKGROUND
    assert_close(encoded(image, kind, transparency=int(index[0, 0])), expected, 0)


def test_png_with_one_transparent_colour() -> None:
    expected = scene()
    expected[(scene() == scene()[3, 5]).all(-1)] = BACKGROUND
    assert (expected != scene()).any()
    data = encoded(Image.fromarray(scene()), "PNG", transparency=tuple(int(v) for v in scene()[3, 5]))
    assert_close(data, expected, 0)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png16(values: Pixels, *extra: bytes) -> bytes:
    """A PNG of 16 bits a sample from uint16 (H, W) or (H, W, 2 to 4)."""
    h, w, c = (*values.shape, 1)[:3]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[c]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wide(values: Pixels) -> Pixels:
    return values.astype(np.uint16) * 257


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = scene()[..., 0]
    expected = np.repeat(grey[..., None], 3, 2)
    assert_close(png16(wide(grey)), expected, 0)
    assert_close(encoded(Image.fromarray(wide(grey)), "TIFF"), expected, 0)
    assert_close(encoded(Image.fromarray(wide(grey).astype(np.int32)), "TIFF"), expected, 0)
    big_endian = Image.frombytes("I;16B", (64, 48), wide(grey).astype(">u2").tobytes())
    assert_close(encoded(big_endian, "TIFF"), expected, 0)


def test_sixteen_bit_grey_with_a_transparent_value() -> None:
    grey = scene()[..., 0]
    expected = np.repeat(grey[..., None], 3, 2)
    expected[grey == 0] = BACKGROUND
    assert_close(png16(wide(grey), chunk(b"tRNS", b"\0\0")), expected, 0)


def test_sixteen_bit_colour_and_alpha() -> None:
    assert_close(png16(wide(scene())), scene(), 0)
    opaque = np.full((48, 64, 1), 65535, np.uint16)
    assert_close(png16(np.concatenate([wide(scene()), opaque], -1)), scene(), 0)
    assert_close(png16(np.concatenate([wide(scene())[..., :1], opaque * 0], -1)), np.full((48, 64, 3), BACKGROUND), 0)


@pytest.mark.parametrize("values", [np.full((4, 4), 70_000, np.int32), np.full((4, 4), -1, np.int32)])
def test_thirty_two_bits_are_refused(values: Pixels) -> None:
    assert "32 bits" in refused(encoded(Image.fromarray(values), "TIFF"))
    assert "floating-point" in refused(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert_close(data, np.full((30, 40, 3), (255, 0, 0)), 0)


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


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "CMYK"])
def test_exif_orientation(kind: str, value: int) -> None:
    expected = TURNS[value](scene())
    image = Image.fromarray(scene())
    if kind == "CMYK":
        data = encoded(Image.fromarray(cmyk(scene()), mode="CMYK"), "JPEG", quality=97, exif=orientation(value))
    elif kind == "JPEG":
        data = encoded(image, "JPEG", quality=97, exif=orientation(value))
    elif kind == "WEBP":
        data = encoded(image, "WEBP", lossless=True, exif=orientation(value))
    else:
        data = encoded(image, kind, exif=orientation(value))
    assert_close(data, expected, 14 if kind in ("JPEG", "CMYK") else 0)


def test_orientation_in_xmp_after_other_segments() -> None:
    data = encoded(Image.fromarray(scene()), "JPEG", quality=97)
    xmp = (
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF "
        b"xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description "
        b"xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation=\"3\"/></rdf:RDF></x:xmpmeta>"
    )
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    comment = b"\xff\xfe\0\x06note" + b"\xff"  # with a fill byte
    assert_close(data[:2] + comment + segment + data[2:], TURNS[3](scene()), 12)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow says so, once
def test_damaged_exif_leaves_the_picture_upright() -> None:
    body = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    data = encoded(Image.fromarray(scene()), "JPEG", quality=97)
    assert_close(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:], scene(), 12)


def test_kind_comes_from_the_bytes() -> None:
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(scene()), "PNG"), "photo.jpg"), scene())


def test_one_pixel() -> None:
    assert_close(encoded(Image.new("RGB", (1, 1), "red"), "PNG"), np.array([[[255, 0, 0]]]), 0)


def test_jpeg_that_strict_decoding_refuses_is_tried_again() -> None:
    data = encoded(Image.fromarray(scene()), "JPEG", quality=97)
    at = data.index(b"\xff\xdb")  # rubbish between two segments: viewers skip it
    stuffed = data[:at] + b"junk" + data[at:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(stuffed)
    assert_close(stuffed, scene(), 12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.03, 0.5, 0.97])
def test_truncated_is_never_partial(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    refused(data[: int(len(data) * share)])


@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_with_an_end_marker(progressive: bool) -> None:
    data = encoded(Image.fromarray(scene()), "JPEG", progressive=progressive)
    cut = data[: len(data) * 3 // 4] + b"\xff\xd9"
    Image.open(io.BytesIO(cut)).load()  # Pillow alone would give a picture, partly grey
    assert "truncated" in refused(cut)


def test_zero_bytes() -> None:
    assert refused(b"") == "the file is empty"


@pytest.mark.parametrize(
    "data", [b"hello, I am a text\n" * 20, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg></svg>", b"\0" * 99]
)
def test_no_image(data: bytes) -> None:
    assert "not an image" in refused(data)


@pytest.mark.parametrize(
    "magic", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF____WEBP", b"P6\n"]
)
@pytest.mark.parametrize("tail", [b"", b"\0" * 64, b"\xff" * 64, bytes(range(200))])
def test_magic_and_rubbish(magic: bytes, tail: bytes) -> None:
    refused(magic + tail)


def test_huge_declared_size_is_refused_quickly() -> None:
    jpeg = bytearray(encoded(Image.fromarray(scene()), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 56_321, 7_789)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )
    start = time.perf_counter()
    assert "7789 x 56321" in refused(bytes(jpeg))
    assert "pixels" in refused(png)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixel_limit(kind: str) -> None:
    data = encoded(Image.fromarray(scene()), kind)
    assert decode(data, "x", max_pixels=48 * 64).shape == (48, 64, 3)
    assert "64 x 48" in refused(data, max_pixels=48 * 64 - 1)


def test_the_error_survives_pickling_and_printing() -> None:
    error = UnreadableImage("f\udcff\u00e9.jpg", "the file is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (again.name, again.reason) == (error.name, error.reason)
    assert str(again) == "f\\udcff\u00e9.jpg: the file is empty."
    str(again).encode("utf-8")


def test_real_photos_as_pillow_shows_them() -> None:
    """Every 40th photo of two data sets; skipped without them."""
    folder = os.environ.get("CYBORGS_TEST_DATA")
    if not folder:
        pytest.skip("CYBORGS_TEST_DATA names no folder with the photos' .tar files")
    seen = 0
    for name in ("bsds500", "coco_subset"):
        with tarfile.open(Path(folder) / f"{name}.tar") as tar:
            members = [m for m in tar.getmembers() if m.name.endswith(".jpg")]
            for member in members[::40]:
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
                np.testing.assert_array_equal(decode(data, member.name), np.array(expected))
                refused(data[:-200])
                seen += 1
    assert seen > 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("number", [1, 3, 6, 8])
def test_orientation_is_told_for_those_who_ignore_it(kind: str, number: int) -> None:
    picture = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = number
    out = io.BytesIO()
    picture.save(out, kind, exif=exif)
    assert orientation_of(out.getvalue()) == number
    assert decode(out.getvalue(), "x").shape[:2] == ((8, 16) if number < 5 else (16, 8))


@pytest.mark.parametrize("data", [b"", b"nothing", b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0"])
def test_no_orientation_is_upright(data: bytes) -> None:
    assert orientation_of(data) == 1
