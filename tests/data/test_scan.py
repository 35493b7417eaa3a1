"""The scan's verdicts, its cache, and the photos by index."""

from __future__ import annotations

import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash
from PIL import Image

from cyborgs.data import scan as scanning
from cyborgs.data.decode import UnreadableImage
from cyborgs.data.images import ScannedImages
from cyborgs.data.listing import InputError, Listing, list_images
from cyborgs.data.scan import scan
from cyborgs.data.scan_cache import default_cache

LATIN = "latin\udce9.jpg"


def save(path: Path, width: int = 48, height: int = 40, value: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    with path.open("wb") as file:
        image.save(file, {".png": "PNG"}.get(path.suffix, "JPEG"), **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four usable photos and one of each kind that is none."""
    root = tmp_path / "data"
    for i, name in enumerate(["a.jpg", "sub/山.png", LATIN]):
        save(root / name, 48 + i, 40 + i, i)
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "turned.jpg", 60, 40, 9, exif=exif)
    (root / "zero.jpg").write_bytes(b"")
    (root / "text.jpg").write_bytes(b"no image at all")
    (root / "cut.png").write_bytes((root / "sub/山.png").read_bytes()[:2000])
    save(root / "dot.png", 1, 1)
    save(root / "thread.jpg", 20_000, 20)
    (root / "gone.jpg").symlink_to("nowhere")
    return root


USABLE = [("a.jpg", 40, 48), (LATIN, 42, 50), ("sub/山.png", 41, 49), ("turned.jpg", 60, 40)]


def test_verdicts(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = scan(list_images(folder), progress=lambda done, total: seen.append((done, total)))
    assert [record[:3] for record in found.images] == sorted(USABLE)
    assert [record[3] for record in found.images] == [
        xxhash.xxh64_intdigest((folder / record[0]).read_bytes()) for record in found.images
    ]
    assert seen == [(i, 9) for i in range(10)]
    reasons = dict(found.skipped)
    assert set(reasons) == {"zero.jpg", "text.jpg", "cut.png", "dot.png", "thread.jpg", "gone.jpg"}
    assert reasons["zero.jpg"] == "the file is empty"
    assert "not an image" in reasons["text.jpg"]
    assert "truncated" in reasons["cut.png"]
    assert "1 x 1 pixels" in reasons["dot.png"]
    assert "20000 x 20 pixels" in reasons["thread.jpg"]
    assert "nowhere" in reasons["gone.jpg"]


def test_workers_change_nothing(folder: Path) -> None:
    for i in range(40):
        save(folder / f"more{i}.png", 33, 33, i)
    results = [scan(list_images(folder), use_cache=False, workers=n) for n in (1, 2, 7)]
    assert results[0] == results[1] == results[2]
    assert len(results[0].images) == 44


def test_limits(folder: Path) -> None:
    assert len(scan(list_images(folder), use_cache=False, min_side=41).images) == 2
    few = scan(list_images(folder), use_cache=False, max_pixels=48 * 41)
    assert [record[0] for record in few.images] == ["a.jpg"]
    assert "limit" in dict(few.skipped)["sub/山.png"]


def test_listed_files_that_are_missing(folder: Path) -> None:
    (folder / "list.txt").write_text("a.jpg\nmissing.jpg\nsub\n")
    found = scan(list_images(folder / "list.txt"))
    assert [record[0] for record in found.images] == ["a.jpg"]
    assert "No such file" in dict(found.skipped)["missing.jpg"]
    assert "directory" in dict(found.skipped)["sub"]


def test_nothing_usable(folder: Path) -> None:
    with pytest.raises(InputError, match=r"none of 2 files .* zero\.jpg: the file is empty"):
        scan(Listing(str(folder), ("zero.jpg", "text.jpg")))


def test_cache_saves_decoding(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache" / "scan.jsonl"
    first = scan(list_images(folder), cache=cache)
    assert [p.name for p in cache.parent.iterdir()] == ["scan.jsonl"]  # nothing left aside
    decoded: list[str] = []

    def refuse(data: bytes, name: str, **_: int) -> None:
        decoded.append(name)
        raise UnreadableImage(name, "decoded again")

    monkeypatch.setattr("cyborgs.data.scan.decode", refuse)
    assert scan(list_images(folder), cache=cache) == first
    assert decoded == []
    stat = (folder / "a.jpg").stat()
    os.utime(folder / "a.jpg", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))  # another time
    (folder / "zero.jpg").write_bytes(b"x")  # another size
    changed = scan(list_images(folder), cache=cache)
    assert sorted(decoded) == ["a.jpg", "zero.jpg"]
    assert dict(changed.skipped)["a.jpg"] == "decoded again"
    decoded.clear()
    assert scan(list_images(folder), cache=cache) == changed
    assert decoded == []


def test_the_limit_of_pixels_is_part_of_the_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "scan.jsonl"
    assert len(scan(list_images(folder), cache=cache, max_pixels=48 * 41).images) == 1
    assert len(scan(list_images(folder), cache=cache).images) == 4
    assert len(scan(list_images(folder), cache=cache, min_side=41).images) == 2  # min_side is not: judged anew
    assert len(scan(list_images(folder), cache=cache).images) == 4


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\0", b"[1, 2]\n", b'{"a": 3}\n[]\n'])
def test_a_damaged_cache_is_made_anew(folder: Path, tmp_path: Path, damage: bytes) -> None:
    cache = tmp_path / "scan.jsonl"
    expected = scan(list_images(folder), cache=cache)
    good = cache.read_bytes()
    for broken in (damage, good[: len(good) * 2 // 3], good + b"[\n", good + b"3\n"):
        cache.write_bytes(broken)
        assert scan(list_images(folder), cache=cache) == expected
        assert cache.read_bytes() == good


def test_a_scan_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 photos, the process is gone after 150 of them: the next scan decodes no more than those not yet written."""
    root, cache = tmp_path / "data", tmp_path / "cache" / "scan.jsonl"
    for i in range(200):
        save(root / f"{i:03d}.jpg", value=i)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from cyborgs.data.listing import list_images\nfrom cyborgs.data.scan import scan\n"
        "def die(done, total):\n    if done == 150:\n        os.kill(os.getpid(), 9)\n"
        "scan(list_images(Path(sys.argv[1])), cache=Path(sys.argv[2]), workers=1, progress=die)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root), str(cache)], check=False)
    assert done.returncode == -9
    (journal,) = cache.parent.iterdir()
    with journal.open("ab") as file:
        file.write(b'["199.jpg", 1, ')  # a line that was being written
    calls: list[str] = []
    real = scanning.decode

    def counted(data: bytes, name: str, **options: int) -> np.ndarray:
        calls.append(name)
        return real(data, name, **options)

    monkeypatch.setattr(scanning, "decode", counted)
    again = scan(list_images(root), cache=cache, workers=1)
    assert 50 <= len(calls) <= 50 + 64
    assert list(cache.parent.iterdir()) == [cache]
    assert again == scan(list_images(root), use_cache=False)


def test_a_scan_that_is_interrupted_keeps_what_it_found(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "scan.jsonl"

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(list_images(folder), cache=cache, workers=1, progress=stop)
    (journal,) = cache.parent.iterdir()
    assert len(journal.read_text().splitlines()) == 1 + 5  # the fifth was noted before the stop


def test_two_scans_at_once_do_not_disturb_each_other(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "scan.jsonl"
    inner: list[object] = []

    def other(done: int, total: int) -> None:
        if done == 3:
            inner.append(scan(list_images(folder), cache=cache))

    outer = scan(list_images(folder), cache=cache, workers=1, progress=other)
    assert inner == [outer]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["scan.jsonl"]
    assert scan(list_images(folder), cache=cache) == outer


def test_where_the_cache_lies(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(folder.rglob("*"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    scan(list_images(folder))
    assert default_cache(folder).parent == tmp_path / "xdg" / "cyborgs"
    assert default_cache(folder).exists()
    assert sorted(folder.rglob("*")) == before
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache(folder).parent == tmp_path / "home" / ".cache" / "cyborgs"


def test_a_cache_that_cannot_be_written_is_no_error(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert len(scan(list_images(folder), cache=tmp_path / "file" / "scan.jsonl").images) == 4
    assert "could not be cached" in caplog.text


def images_of(folder: Path) -> ScannedImages:
    return ScannedImages.from_scan(scan(list_images(folder)))


def test_images_by_index(folder: Path) -> None:
    images = images_of(folder)
    assert len(images) == 4
    assert [(images.name(i), *images.size(i)) for i in range(4)] == sorted(USABLE)
    for i in range(4):
        pixels = images.read(i)
        assert pixels.shape == (*images.size(i), 3)
        assert pixels.dtype == np.uint8
    for wrong in (-1, 4):
        with pytest.raises(IndexError):
            images.name(wrong)
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(again.read(1), images.read(1))
    part = images.subset([2, 0])
    assert [part.name(i) for i in range(2)] == [images.name(2), images.name(0)]
    np.testing.assert_array_equal(part.read(0), images.read(2))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(b"gone bad"), "not an image"),
        (lambda path: save(path, 70, 50), "in the scan"),
    ],
)
def test_a_photo_that_fails_later_is_named(folder: Path, damage: object, reason: str) -> None:
    images = images_of(folder)
    damage(folder / "a.jpg")  # type: ignore[operator]
    with pytest.raises(UnreadableImage, match=rf"^a\.jpg: .*{reason}"):
        images.read(0)


def test_fingerprint(folder: Path, tmp_path: Path) -> None:
    images = images_of(folder)
    print_ = images.fingerprint()
    assert len(print_) == 16
    folder.rename(tmp_path / "moved")
    assert images_of(tmp_path / "moved").fingerprint() == print_
    assert images.subset(range(4)).fingerprint() == print_
    assert images.subset([1, 0, 2, 3]).fingerprint() != print_
    assert images.subset([0, 1, 2]).fingerprint() != print_
    records = [("ab", 40, 40, 1), ("c", 40, 40, 2)]
    assert (
        ScannedImages("x", records).fingerprint()
        != ScannedImages("x", [("a", 40, 40, 1), ("bc", 40, 40, 2)]).fingerprint()
    )
    assert (
        ScannedImages("x", records).fingerprint()
        != ScannedImages("x", [("ab", 40, 40, 3), ("c", 40, 40, 2)]).fingerprint()
    )
    save(tmp_path / "moved" / "a.jpg", 48, 40, 77)
    assert images_of(tmp_path / "moved").fingerprint() != print_


def test_csv(folder: Path, tmp_path: Path) -> None:
    images = images_of(folder)
    images.write_csv(tmp_path)
    with (tmp_path / "images.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [images.name(i) for i in range(4)]
    assert [(row["index"], row["height"], row["width"]) for row in rows[:2]] == [("0", "40", "48"), ("1", "42", "50")]
    assert rows[0]["hash"] == xxhash.xxh64_hexdigest((folder / "a.jpg").read_bytes())
    assert b"latin\xe9.jpg" in (tmp_path / "images.csv").read_bytes()
    with (tmp_path / "skipped.csv").open(encoding="utf-8", newline="") as file:
        skipped = list(csv.reader(file))
    assert skipped[0] == ["name", "reason"]
    assert [tuple(row) for row in skipped[1:]] == list(images.skipped)
    assert len(skipped) == 7
    assert not list(tmp_path.glob("*.tmp"))


def test_a_hundred_thousand_photos_pickle_small() -> None:
    records = [(f"folder{i % 100}/photograph_{i:012d}.jpg", 480, 640, i * 2**40) for i in range(100_000)]
    assert len(pickle.dumps(ScannedImages("root", records))) / len(records) < 38 + 32
