"""Names of files that are markup, commands to a terminal or ways out of a folder: they are text, wherever they go."""

from __future__ import annotations

import csv
import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.cli import main
from cyborgs.data.decode import UnreadableImage
from cyborgs.data.images import ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import MAX_BYTES, scan
from cyborgs.errors import UserError, printable
from cyborgs.segmenting.names import mask_names
from cyborgs.segmenting.segment import segment
from tests.conftest import make_photos
from tests.features.fakes import FakeBackbone

NAMES = [
    "<script>alert(1)</script>.png",
    "<img src=x onerror=alert(1)>&amp;.png",
    "quotes\" and 'apostrophes'.png",
    "=cmd|' calc'!A0.png",
    "new\nline,comma.png",
    "carriage\rreturn.png",
    "\x1b[2J\x1b]0;owned\x07.png",
    "\u202egnp.exe.png",
    "\x9b31m\x7f.png",
    os.fsdecode(b"latin\xe9.png"),
    "{{ 7 * 7 }}{% raw %}.png",
    "%s%n $(touch ran) `touch ran`.png",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.jpg", "plain.jpg"),
        ("Ä ü 山\u3000写真 \U0001f469\u200d\U0001f467.jpg", "Ä ü 山\u3000写真 \U0001f469\u200d\U0001f467.jpg"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x07\x7f\x9b", r"\x1b[2J\x07\x7f\x9b"),
        ("\u202e\u2066\u200f\u061c\u2028", r"\u202e\u2066\u200f\u061c\u2028"),
        ("f\udcff.jpg", r"f\udcff.jpg"),
        ("<b>&amp;", "<b>&amp;"),  # markup is for whoever writes markup
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert str(UserError(text)) == shown
    assert str(UnreadableImage(text, "odd")) == f"{shown}: odd."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos with such names, and as many broken ones."""
    plain = sorted(make_photos(tmp_path / "plain", len(NAMES)).iterdir())
    folder = tmp_path / "photos"
    for source, name in zip(plain, NAMES, strict=True):
        for place in (folder / name, folder / f"bad {name}"):
            place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
        (folder / f"bad {name}").write_bytes(b"GIF89a")
    return folder


def test_in_tables_they_stay_what_they_are(folder: Path, tmp_path: Path) -> None:
    images = ScannedImages.from_scan(scan(list_images(folder), use_cache=False))
    assert sorted(images.name(i) for i in range(len(images))) == sorted(NAMES)
    images.write_csv(tmp_path)
    for table, expected in (("images", NAMES), ("skipped", [f"bad {name}" for name in NAMES])):
        with open(tmp_path / f"{table}.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            assert sorted(row["name"] for row in csv.DictReader(file)) == sorted(expected)
    for _, reason in images.skipped:
        assert reason == printable(reason)


def test_pretrain_segment_and_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the commands: nothing that a terminal would obey, nothing outside --out, nothing run."""
    before = sorted(tmp_path.rglob("*"))
    run, masks = tmp_path / "run", tmp_path / "masks"
    settings = ["--backbone.name", "timm:test_resnet", "--batch-size", "4", "--method.slice-size", "4", "--epochs", "1"]
    settings += ["--views.size", "32", "--views.grid", "2", "--workers", "0", "--max-skipped", "1"]
    settings += ["--method.hidden", "16", "--method.embedding", "8", "--method.warmup-steps", "1"]
    assert main(["pretrain", "--data", str(folder), "--out", str(run), *settings]) == 0
    assert main(["segment", str(folder), "--backbone", str(run), "--out", str(masks), "--clusters", "2"]) == 0
    assert main(["report", str(run), "--data", str(folder)]) == 0
    said = "".join(capsys.readouterr())
    assert "skipped" in said
    for line in said.split("\n"):
        assert line.replace("\r", "").isprintable(), repr(line)  # \r: the bar of the progress
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page
    assert "{{ 7 * 7 }}" in page  # no template
    made = {path.parts[len(tmp_path.parts)] for path in set(tmp_path.rglob("*")) - set(before)}
    assert made == {"run", "masks"}
    assert len([path for path in (masks / "labels").rglob("*") if path.is_file()]) == len(NAMES)


OUTSIDE = ["../up.png", "../../up.png", "{abs}/up.png", "//{abs}/up.png", "a/../../up.png", "./here.png", "a/here.png"]
OUTSIDE += ["a.png/here.png", "a.png"]


def test_a_list_may_read_outside_but_nothing_is_written_there(tmp_path: Path) -> None:
    home = tmp_path / "one" / "two"
    (home / "a").mkdir(parents=True)
    (home / "a.png.d").mkdir()
    source = sorted(make_photos(tmp_path / "plain", 1).iterdir())[0]
    for place in (tmp_path / "up.png", tmp_path / "one" / "up.png", home / "here.png", home / "a" / "here.png"):
        shutil.copy(source, place)
    (home / "list.txt").write_text("\n".join(name.format(abs=tmp_path) for name in OUTSIDE[:-2]))
    images = ScannedImages.from_scan(scan(list_images(home / "list.txt"), use_cache=False))
    assert len(images) == len(OUTSIDE) - 2
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    out = tmp_path / "deep" / "er" / "out"
    segment(images, FakeBackbone(), out, layers=["layer2"], clusters=2)
    assert {path: path.read_bytes() for path in before} == before
    new = {path for path in set(tmp_path.rglob("*")) - set(before) if path.is_file()}
    assert all(path.is_relative_to(out) for path in new)
    assert len([path for path in new if path.is_relative_to(out / "labels")]) == len(images)
    assert len([path for path in new if path.is_relative_to(out / "overlays")]) == len(images)


@pytest.mark.parametrize(
    "names",
    [
        ["//etc/passwd.jpg", "/etc/passwd.jpg", "etc/passwd.jpg", "../etc/passwd.png", "///etc/passwd.jpg"],
        ["a.jpg", "a.png/b.jpg"],  # a mask like a folder of masks
        ["a.png", "a.jpg/b.png"],  # an overlay like a folder of overlays
        ["a.png", "a.png/b.jpg", "a.jpg/c.jpg", "a.jpg", "A.PNG/d.jpg"],
        ["é.jpg", "e\u0301.jpg", "É.jpg", "STRASSE.jpg", "straße.jpg"],
        ["..", ".", "/", "//", "a/..", "...", " ", "~", "~root/x.jpg", "-rf.jpg"],
        ["a.jpg", "a.png", "a.jpg.png", "a.jpg.2.png", "A.jpg"],
        NAMES,
    ],
)
def test_masks_stay_inside_and_apart(names: list[str], tmp_path: Path) -> None:
    made = mask_names(names)
    assert len({unicodedata.normalize("NFC", name).casefold() for name in made}) == len(names)
    for suffix in (".png", ".jpg"):
        root = tmp_path / suffix
        for name in made:
            target = (root / name).with_suffix(suffix)
            assert Path(os.path.normpath(target)).is_relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "xb") as file:  # neither a second file of the name, nor a folder
                file.write(b"x")
    assert mask_names(names) == made


def test_what_a_list_names_is_not_always_a_file(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    with open(tmp_path / "sparse.png", "wb") as file:
        file.write((tmp_path / "good.png").read_bytes())
        file.truncate(MAX_BYTES + 1)
    names = ["good.png", "pipe.png", "sparse.png", "/dev/zero", "/dev/tty", "/proc/self/mem", ".", "none.png"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    found = scan(list_images(tmp_path / "list.txt"), use_cache=False)
    assert [name for name, *_ in found.images] == ["good.png"]
    reasons = dict(found.skipped)
    assert set(reasons) == set(names[1:])
    assert reasons["pipe.png"] == reasons["/dev/zero"] == "no regular file"
    assert "too large: 512 MB" in reasons["sparse.png"]
