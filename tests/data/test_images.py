"""Photos by number: files that nothing scanned."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.decode import UnreadableImage
from cyborgs.data.images import PhotoFiles


def write(path: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    """A photo of (width, height), as it is stored."""
    width, height = size
    picture = Image.fromarray(np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3))
    if orientation == 1:
        picture.save(path)
    elif path.suffix == ".tif":
        picture.save(path, tiffinfo={0x0112: orientation})
    else:
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
    return path


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.tif"])
@pytest.mark.parametrize(("orientation", "wanted"), [(1, (2, 4)), (3, (2, 4)), (6, (4, 2)), (8, (4, 2))])
def test_the_size_in_the_header_is_that_of_the_pixels(
    tmp_path: Path, name: str, orientation: int, wanted: tuple[int, int]
) -> None:
    photos = PhotoFiles((write(tmp_path / name, (4, 2), orientation),))
    assert photos.size(0) == wanted
    assert photos.read(0).shape == (*wanted, 3)


def test_files_by_number(tmp_path: Path) -> None:
    paths = tuple(write(tmp_path / f"{i}.png", (4 + i, 2)) for i in range(3))
    photos = PhotoFiles(paths)
    assert [photos.name(i) for i in range(len(photos))] == [str(path) for path in paths]
    assert [photos.file_size(i) for i in range(3)] == [len(photos.content(i)) for i in range(3)]
    assert photos.content(1) == paths[1].read_bytes()
    assert np.array_equal(photos.read(0).ravel(), np.arange(24))
    part = photos.subset([2, 0])
    assert part == PhotoFiles((paths[2], paths[0]))
    assert [part.size(i) for i in range(2)] == [(2, 6), (2, 4)]


def test_the_fingerprint_changes_with_place_size_time_and_order(tmp_path: Path) -> None:
    paths = tuple(write(tmp_path / f"{i}.png", (4, 2)) for i in range(2))
    for path in paths:
        os.utime(path, ns=(7, 7))
    photos = PhotoFiles(paths)
    first = photos.fingerprint()
    assert first == photos.fingerprint() != photos.subset([1, 0]).fingerprint()
    os.utime(paths[0], ns=(7, 8))
    later = photos.fingerprint()
    with paths[1].open("ab") as file:
        file.write(b"x")
    os.utime(paths[1], ns=(7, 7))
    longer = photos.fingerprint()
    paths[0].rename(tmp_path / "moved.png")
    moved = PhotoFiles((tmp_path / "moved.png", paths[1])).fingerprint()
    assert len({first, later, longer, moved}) == 4


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"x")
    photos = PhotoFiles((tmp_path / "gone.jpg", tmp_path / "bad.png"))
    for call in (photos.content, photos.read, photos.file_size, photos.size):
        with pytest.raises(UnreadableImage, match=r"gone\.jpg: .*No such file"):
            call(0)
    for call in (photos.read, photos.size):
        with pytest.raises(UnreadableImage, match=r"bad\.png: "):
            call(1)
    with pytest.raises(UnreadableImage, match=r"gone\.jpg: cannot be opened"):
        photos.fingerprint()
